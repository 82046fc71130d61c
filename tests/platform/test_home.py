import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from slimfed.clients.errors import InputError
from slimfed.platform.home import create_run_folder, home, new_run_id, run_folder


def test_home_is_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert home({}) == tmp_path / "slimfed-runs"
    assert home({"SLIMFED_HOME": ""}) == tmp_path / "slimfed-runs"
    assert home({"SLIMFED_HOME": "here"}) == tmp_path / "here"
    assert list(tmp_path.iterdir()) == []


def test_run_ids_sort_by_age() -> None:
    early, late = (new_run_id(datetime(2026, 1, 1, 12, 0, second, tzinfo=UTC)) for second in (5, 6))
    assert early < late
    assert re.fullmatch(r"20260101-120005-[a-z2-9]{3}", early)


def test_every_run_gets_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = iter(["run-a", "run-a", "run-a", "run-b"])
    monkeypatch.setattr("slimfed.platform.home.new_run_id", lambda: next(names))
    first, second = create_run_folder(tmp_path / "new"), create_run_folder(tmp_path / "new")
    assert (first[0], second[0]) == ("run-a", "run-b")
    assert second[1] == run_folder(tmp_path / "new", "run-b")
    assert second[1].path.is_dir()
    assert second[1].checkpoints.parent == second[1].path


def test_a_home_that_cannot_be_written_is_bad_input() -> None:
    with pytest.raises(InputError, match=r"SLIMFED_HOME = '/dev/null/x': cannot be written"):
        create_run_folder(Path("/dev/null/x"))
