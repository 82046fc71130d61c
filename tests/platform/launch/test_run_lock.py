"""One process computes a run, whatever the store says."""

import fcntl
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from house import House, tiny_job
from sqlalchemy import update
from typer.testing import CliRunner

from slimfed.clients.errors import InputError
from slimfed.platform.api.runs import resume
from slimfed.platform.cli import app
from slimfed.platform.home import run_folder
from slimfed.platform.launch.liveness import is_alive, settle
from slimfed.platform.launch.run_lock import computing, is_computed, refuse_if_computed
from slimfed.platform.store.schema import Run
from slimfed.platform.store.writer import Store


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("locked"), tiny_job())


def failed(house: House) -> str:
    """A run that has failed, so far as the store knows."""
    run = house.new_run()
    with Store.open(house.url, house.home) as store:
        store.finish(run, "failed", "its launcher was killed")
    return run


def test_a_run_that_another_process_computes_is_not_computed(house: House) -> None:
    """The second process ends without a word in the store, where the first one writes."""
    run = failed(house)
    with computing(run_folder(house.home, run)):
        assert house.compute(run, take_over=False) == 1
    row = house.row(run)
    assert (row.status, row.cause, row.rounds_done) == ("failed", "its launcher was killed", 0)


def test_a_run_that_another_process_computes_is_not_resumed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIMFED_HOME", str(house.home))
    run = failed(house)
    with computing(run_folder(house.home, run)):
        for queue in ([], ["--queue"]):
            refused = CliRunner().invoke(app, ["resume", run, *queue])
            assert refused.exit_code == 2
            assert f"run {run} is being computed by process {os.getpid()}" in refused.output
            assert f"wait for its end, or end it (kill {os.getpid()})" in refused.output
        with pytest.raises(InputError, match="is being computed by process"):
            resume(run, runtime="local", progress=False, home=house.home)
    assert house.row(run).status == "failed"


@pytest.mark.parametrize("days", [-1, 1])
def test_a_jump_of_the_clock_does_not_make_a_running_run_a_failed_one(house: House, days: int) -> None:
    """The last heartbeat is then a day old, and older than the process, or a day in the future."""
    run = house.new_run()
    with Store.open(house.url, house.home) as store:
        store.mark_running(run)
        beaten = datetime.now(UTC) + timedelta(days=days)
        with store.engine.begin() as connection:
            connection.execute(update(Run).where(Run.id == run).values(heartbeat_at=beaten))
        with computing(run_folder(house.home, run)):
            settle(store)
            assert is_alive(house.row(run))
            assert house.row(run).status == "running"


def test_the_lock_goes_with_the_process_and_the_folder_may_be_an_old_ones(house: House) -> None:
    """A run of an earlier version has no lock file."""
    folder = run_folder(house.home, failed(house))
    refuse_if_computed(folder)
    child = os.fork()
    if child == 0:
        with computing(folder):
            os._exit(0)  # as if killed: nothing is tidied up
    os.waitpid(child, 0)
    refuse_if_computed(folder)
    with computing(folder):
        assert folder.lock.read_text() == str(os.getpid())


def test_a_file_system_without_locks_is_refused(house: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unable(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("slimfed.platform.launch.run_lock.fcntl.flock", unable)
    folder = run_folder(tmp_path, "run")
    folder.path.mkdir()
    with (
        pytest.raises(InputError, match=r"its file system takes no locks \(No locks available\)"),
        computing(folder),
    ):
        pass


def test_looks_at_a_lock_exclude_neither_each_other_nor_a_start(house: House) -> None:
    folder = run_folder(house.home, house.new_run())
    with computing(folder):
        pass
    with folder.lock.open("r+") as look:
        fcntl.flock(look, fcntl.LOCK_SH)
        assert not is_computed(folder)
        threading.Timer(0.2, lambda: fcntl.flock(look, fcntl.LOCK_UN)).start()
        with computing(folder):  # waits for the look
            assert is_computed(folder)
