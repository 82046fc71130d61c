"""Completion in shells: commands, options and the ids of runs, and nothing that disturbs a prompt."""

import os
import subprocess
import sys
from pathlib import Path

from slimfed.platform.job.job import job_to_dict, load_job
from slimfed.platform.store.writer import Store


def completed(line: str, home: Path) -> list[str]:
    words = line.split(" ")
    asked = {"_SLIMFED_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'slimfed'; from slimfed.platform.cli import main; main()"],
        env={**os.environ, **asked, "SLIMFED_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_commands_options_and_runs_are_completed(tmp_path: Path) -> None:
    assert completed("slimfed rep", tmp_path) == ["report"]
    assert "--force" in completed("slimfed report --", tmp_path)
    assert completed("slimfed show 2026", tmp_path) == [], "no store is no error"
    assert not (tmp_path / "store.db").exists()
    with Store.open("sqlite", tmp_path) as store:
        store.create_run("20260101-120000-abc", job_to_dict(load_job(None, [])), Path("one"))
    assert completed("slimfed show 2026", tmp_path) == ["20260101-120000-abc"]
    assert "last" in completed("slimfed show la", tmp_path)
