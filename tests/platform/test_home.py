import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from slimfed.clients.errors import InputError
from slimfed.platform.cli import app
from slimfed.platform.home import create_run_folder, home, looked_for_runs, new_run_id, run_folder


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's home, in a world of its own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "work" / "project" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work" / "project" / "deep")
    return tmp_path / "data" / "slimfed" / "runs"


def test_home_is_named_by_the_environment(users: Path) -> None:
    (Path.cwd() / "slimfed-runs").mkdir()
    assert home({"SLIMFED_HOME": "here"}) == Path.cwd() / "here"
    assert home({"SLIMFED_HOME": ""}) == Path.cwd() / "slimfed-runs"


def test_home_is_the_nearest_upwards_or_else_the_users(users: Path) -> None:
    deep, project, work = Path.cwd(), Path.cwd().parent, Path.cwd().parents[1]
    assert home({}) == users
    for folder in (work, project, deep):
        (folder / "slimfed-runs").mkdir()
        assert home({}) == folder / "slimfed-runs"
    (deep / "slimfed-runs").rmdir()
    (deep / "slimfed-runs").write_text("a file is no home")
    assert home({}) == project / "slimfed-runs"
    assert not users.exists()


def test_a_folder_above_that_somebody_else_made_is_no_home(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (Path.cwd().parent / "slimfed-runs").mkdir()
    monkeypatch.setattr("os.getuid", lambda: os.stat(Path.cwd()).st_uid + 1)
    assert home({}) == users
    (Path.cwd() / "slimfed-runs").mkdir()  # who works in a folder knows what is in it
    assert home({}) == Path.cwd() / "slimfed-runs"


def test_no_runs_says_where_was_looked_and_what_else_there_is(users: Path) -> None:
    assert str(users) in looked_for_runs({})
    assert f"neither {Path.cwd()} nor a folder above it has slimfed-runs" in looked_for_runs({})
    users.mkdir(parents=True)
    (users / "store.db").touch()
    (Path.cwd().parent / "slimfed-runs").mkdir()
    said = looked_for_runs({})
    assert said.startswith(f"{Path.cwd().parent / 'slimfed-runs'} (the nearest slimfed-runs from")
    assert f"there are runs in {users} (SLIMFED_HOME={users})" in said
    assert "SLIMFED_HOME names it" in looked_for_runs({"SLIMFED_HOME": "here"})
    listed = CliRunner().invoke(app, ["runs"], env={"SLIMFED_HOME": "", "SLIMFED_STORE": ""})
    assert listed.exit_code == 0
    assert f"there are runs in {users}" in " ".join(listed.output.split())
    refused = CliRunner().invoke(app, ["show", "last"], env={"SLIMFED_HOME": "", "SLIMFED_STORE": ""})
    assert refused.exit_code == 2
    assert "start one with `slimfed run`" in refused.output


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
