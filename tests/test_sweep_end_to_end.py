"""A sweep through the real Flower runtime: two runs at once, and what a second call makes of them."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from slimfed.clients.builtin.commands import commands
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.schema import Run
from slimfed.platform.store.writer import Store

pytestmark = pytest.mark.timeout(900)

JOB = """
name = "tiny"
seed = 3
[data]
path = "./data"
max_length = 16
[fleet]
devices = 3
[training]
rounds = 1
local_steps = 2
batch_size = 4
[evaluation]
devices = 1
[engine]
name = "cohort"
dtype = "fp32"
cohort_size = 3
"""


@dataclass
class Ended:
    """A ``slimfed sweep`` that has ended: exit code, the comparison it printed, standard error."""

    code: int
    comparison: dict[str, Any]
    notes: str


def _sweep(folder: Path) -> Ended:
    command = [sys.executable, "-c", "from slimfed.platform.cli import main; main()", "sweep", str(folder / "job.toml")]
    options = ["--set", "method.target_sparsity=0.0,0.3", "--parallel", "2", "--json"]
    environment = {**os.environ, "SLIMFED_HOME": str(folder / "runs")}
    environment.pop("SLIMFED_STORE", None)
    done = subprocess.run([*command, *options], capture_output=True, text=True, env=environment, timeout=600)
    return Ended(done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr)


def test_a_sweep_runs_what_is_missing_and_goes_on_with_what_was_stopped(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(JOB)
    (tmp_path / "data").mkdir()
    for split, rows in zip(("train", "test"), commands(), strict=True):
        lines = [json.dumps({"text": row.text, "label": row.label}) for row in rows[:90]]
        (tmp_path / "data" / f"{split}.jsonl").write_text("\n".join(lines))

    first = _sweep(tmp_path)
    assert first.code == 0, first.notes
    assert "2 runs, 0 done already, 0 to go on with, 2 to start" in first.notes
    groups = first.comparison["groups"]
    assert [group["differences"]["method.target_sparsity"] for group in groups] == [0.0, 0.3]
    assert all(group["final"]["of"] == 1 and group["final"]["mean"] is not None for group in groups)

    with Store.open("sqlite", tmp_path / "runs") as store:
        rows = Reader(store.engine).runs(sweep="tiny")
        assert {row.status for row in rows} == {"done"}
        assert all(row.joules > 0 for row in rows)
        with store.engine.begin() as connection:
            stopped = update(Run).where(Run.id == rows[0].id).values(status="stopped", cause="asked to stop")
            connection.execute(stopped)
    second = _sweep(tmp_path)
    assert second.code == 0, second.notes
    assert "2 runs, 1 done already, 1 to go on with, 0 to start" in second.notes
    assert second.comparison == first.comparison
