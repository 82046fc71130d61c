"""A store that is lost, copied or locked: what the run folders and a backup bring back, and what a user is told."""

import resource
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from house import ROUNDS, House, die_in_mid_round, tiny_job
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from missing import missing
from sqlalchemy import select
from typer.testing import CliRunner

from slimfed.clients.errors import InputError
from slimfed.platform.cli import app
from slimfed.platform.home import run_folder
from slimfed.platform.job.job import Job
from slimfed.platform.launch.run_lock import computing
from slimfed.platform.recovery import recover
from slimfed.platform.server import checkpoint
from slimfed.platform.store import database, faults, mirror
from slimfed.platform.store.backup import back_up
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.schema import Base
from slimfed.platform.store.writer import Store
from slimfed.strategies.protocols import Event

EVERY = ("runs", "devices", "rounds", "assignments", "evaluations", "class_rounds", "pulls", "blocks", "events")
OF_THE_PROCESS = ("started_at", "finished_at", "heartbeat_at", "pid", "stop_requested", "id")


@pytest.fixture(scope="module")
def job() -> Job:
    return tiny_job()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, job: Job) -> tuple[House, str]:
    house = House(tmp_path_factory.mktemp("finished"), job)
    run = house.new_run()
    assert house.compute(run) == 0
    return house, run


@pytest.fixture
def house(finished: tuple[House, str], tmp_path: Path) -> House:
    """A copy of the home, to be damaged."""
    shutil.copytree(finished[0].home, tmp_path / "home")
    return House(tmp_path / "home", finished[0].job)


@pytest.fixture
def run(finished: tuple[House, str]) -> str:
    return finished[1]


def contents(house: House) -> dict[str, list[dict[str, Any]]]:
    """Every row of the store but what belongs to a process that is gone."""
    with Store.open(house.url, house.home) as store, store.engine.connect() as connection:
        tables = {name: Base.metadata.tables[name] for name in EVERY}
        rows = {name: [dict(row) for row in connection.execute(select(t)).mappings()] for name, t in tables.items()}
    return {
        name: sorted(({k: v for k, v in row.items() if k not in OF_THE_PROCESS} for row in each), key=repr)
        for name, each in rows.items()
    }


def lose_the_store(home: Path) -> None:
    for path in home.glob("store.db*"):
        path.unlink()


def recovered(house: House) -> list[Any]:
    with Store.open(house.url, house.home) as store:
        return recover(store, house.home)


def test_what_is_committed_is_in_the_file_itself(house: House) -> None:
    """A copy of ``store.db`` alone, without its log, has everything: the log is emptied after every write."""
    before = contents(house)
    run = house.new_run()
    for log in house.home.glob("store.db-*"):
        log.unlink()
    assert run in {row["folder"].rsplit("/", 1)[1] for row in contents(house)["runs"]}
    lost = {k: [r for r in v if r not in before[k]] for k, v in contents(house).items()}
    assert len(lost["runs"]) == 1


def test_a_lost_store_is_rebuilt_row_by_row(house: House, run: str) -> None:
    before = contents(house)
    before["runs"][0]["folder"] = str(house.home / run)
    lose_the_store(house.home)
    (found,) = recovered(house)
    assert (found.run, found.before, found.after, found.complete) == (run, None, ROUNDS, True)
    assert contents(house) == before
    assert house.row(run).status == "done"
    again = recovered(house)
    assert (again[0].before, again[0].note) == (ROUNDS, "complete")
    assert contents(house) == before, "a second recovery changes nothing"


def test_a_store_of_yesterday_gets_the_rounds_of_today(house: House, run: str) -> None:
    before = contents(house)
    with Store.open(house.url, house.home) as store:
        store.rewind(run, 1)
    (found,) = recovered(house)
    assert (found.before, found.after, found.note) == (1, ROUNDS, f"rounds 2 to {ROUNDS} added")
    after = contents(house)
    assert {name: rows for name, rows in after.items() if name != "runs"} == {
        name: rows for name, rows in before.items() if name != "runs"
    }


def test_a_recovered_run_resumes_to_the_same_bits(house: House, run: str) -> None:
    half = house.new_run()
    assert house.compute(half, die_in_mid_round) == -signal.SIGKILL
    lose_the_store(house.home)
    found = {each.run: each for each in recovered(house)}
    assert (found[half].after, found[run].after) == (1, ROUNDS)
    row = house.row(half)
    assert (row.status, row.cause) == ("stopped", f"recovered from its folder after 1 of {ROUNDS} rounds")
    assert house.compute(half) == 0
    assert house.row(half).status == "done"
    (tensors, state), (others, other) = house.end(half), house.end(run)
    assert state == other
    assert all((tensors[name] == others[name]).all() for name in tensors)


def test_damaged_and_missing_copies_are_said_and_the_rest_is_recovered(house: House, run: str) -> None:
    old, torn, gap = (house.new_run() for _ in range(3))
    shutil.rmtree(run_folder(house.home, old).rows)
    (run_folder(house.home, torn).rows / "run.json.gz").write_bytes(b"torn")
    shutil.copy(run_folder(house.home, run).rows / "round-00002.json.gz", run_folder(house.home, gap).rows)
    lose_the_store(house.home)
    found = {each.run: each for each in recovered(house)}
    assert found[run].complete
    assert not found[old].complete
    assert "older slimfed" in found[old].note
    assert not found[torn].complete
    assert "run.json.gz" in found[torn].note
    assert (found[gap].after, found[gap].complete) == (0, False), "rounds are added up to the first gap"
    assert "round 1 is missing" in found[gap].note


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_to_one_copy_keeps_the_others_out(finished: tuple[House, str], tmp_path: Path, data: Any) -> None:
    """One byte of a copy is another one: that run is said by name, or has all its rows; the run after it is there."""
    (house, run), home = finished, tmp_path / str(len(list(tmp_path.iterdir())))
    home.mkdir()
    bad, good = home / "20250101-000000-bad", home / run
    for folder in (bad, good):
        shutil.copytree(house.home / run, folder)
    name = data.draw(st.sampled_from(["run.json.gz", "round-00001.json.gz", f"round-0000{ROUNDS}.json.gz"]))
    content = bytearray((bad / "rows" / name).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (bad / "rows" / name).write_bytes(content)
    found = {each.run: each for each in recovered(House(home, house.job))}
    assert not found[bad.name].complete, "it is the copy of another run's rows in any case"
    assert found[run].after == ROUNDS


def test_copied_and_renamed_folders_are_no_runs(house: House, run: str) -> None:
    shutil.copytree(house.home / run, house.home / "a-copy")
    lose_the_store(house.home)
    found = {each.run: each for each in recovered(house)}
    assert found[run].complete
    assert not found["a-copy"].complete
    assert "no copy of rows of run a-copy" in found["a-copy"].note


def test_a_run_that_went_back_is_not_done(house: House, run: str) -> None:
    """Resumed from an earlier checkpoint and stopped: what was recorded after it belongs to an abandoned course."""
    with Store.open(house.url, house.home) as store:
        store.rewind(run, ROUNDS - 1)
    shutil.rmtree(checkpoint.path_of(run_folder(house.home, run).checkpoints, ROUNDS))
    (found,) = recovered(house)
    assert found.after == ROUNDS
    assert house.row(run).status == "stopped", "it has no model of its last round, so it can be resumed"
    mirror.forget_after(run_folder(house.home, run).rows, 1)
    assert mirror.rounds(run_folder(house.home, run).rows) == [1]


def test_runs_of_another_store_stay_there(house: House, run: str, tmp_path: Path) -> None:
    job = run_folder(house.home, run).job
    job.write_text(job.read_text().replace('url = "sqlite"', f'url = "sqlite:///{tmp_path}/elsewhere.db"'))
    lose_the_store(house.home)
    (found,) = recovered(house)
    assert found.after == 0
    assert "elsewhere.db" in found.note


def test_a_log_that_cannot_be_emptied_loses_nothing(house: House) -> None:
    """The disk is full for the file itself: what was committed stays in the log, and no write fails because of it."""
    run = house.new_run()
    with Store.open(house.url, house.home) as store:
        store.add_event(run, Event(0, "first", "x", "y"))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, ((house.home / "store.db").stat().st_size, hard))
        try:
            for number in range(10):
                store.add_event(run, Event(number, "later", "x" * 1900, "y"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert store.finish(run, "stopped", "the disk has room again")
        assert sum(each.kind == "later" for each in Reader(store.engine).events(run, limit=None)) == 10


def test_a_run_that_a_process_computes_is_left_alone(house: House, run: str) -> None:
    """Its store was lost while it goes on: as a stopped run it could be resumed beside itself."""
    lose_the_store(house.home)
    with computing(run_folder(house.home, run)):
        (found,) = recovered(house)
    assert (found.after, found.complete) == (0, False)
    assert "is running" in found.note
    assert recovered(house)[0].note == "added"


def test_copies_of_an_abandoned_course_go(house: House, run: str) -> None:
    rows = run_folder(house.home, run).rows
    with Store.open(house.url, house.home) as store, store.engine.connect() as connection:
        mirror.copy_round(connection, run, 1, rows)
    assert mirror.rounds(rows) == [1]


def test_a_backup_is_whole_and_never_overwrites(house: House, tmp_path: Path) -> None:
    copy = tmp_path / "copy" / "store.db"
    copy.parent.mkdir()
    with Store.open(house.url, house.home) as store:
        back_up(store, copy)
        with pytest.raises(InputError, match="exists already"):
            back_up(store, copy)
        with pytest.raises(InputError, match="no such folder"):
            back_up(store, tmp_path / "nowhere" / "store.db")
    assert contents(House(copy.parent, house.job)) == contents(house)
    assert list(copy.parent.glob(".*")) == []


def test_a_damaged_store_is_not_backed_up(house: House, tmp_path: Path) -> None:
    file = house.home / "store.db"
    with Store.open(house.url, house.home) as store:
        content = bytearray(file.read_bytes())
        content[20_000:60_000] = b"?" * 40_000
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"damaged|cannot be copied"):
            back_up(store, tmp_path / "copy.db")
    assert list(tmp_path.glob("*copy.db*")) == []


def command(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def test_the_commands(house: House, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIMFED_HOME", str(house.home))
    assert command("db", "backup", str(tmp_path / "copy.db")).exit_code == 0
    lose_the_store(house.home)
    answer = command("db", "recover")
    assert answer.exit_code == 0, answer.output
    assert "added" in answer.output
    assert run in command("runs", "--json").stdout
    shutil.rmtree(run_folder(house.home, house.new_run()).rows)
    lose_the_store(house.home)
    assert command("db", "recover", "--json").exit_code == 1, "one run has no copy"


def test_where_there_are_no_runs_nothing_is_recovered_and_nothing_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIMFED_HOME", str(tmp_path / "nowhere"))
    answer = command("db", "recover")
    assert answer.exit_code == 2
    assert "has no run folders" in answer.output
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def read_only(house: House) -> Iterator[House]:
    """The home on a file system that is mounted read-only."""
    home = str(house.home)
    for options in (["--bind", home, home], ["-o", "remount,ro,bind", home]):
        if subprocess.run(["mount", *options], check=False, capture_output=True, timeout=30).returncode:
            missing("only root may mount a folder")
    yield house
    subprocess.run(["umount", "--lazy", home], check=True, timeout=30)


def test_a_read_only_home_lists_and_shows(read_only: House, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIMFED_HOME", str(read_only.home))
    for words in (["runs"], ["show", run], ["show", run, "--json"], ["compare", run, run, "--json"]):
        answer = command(*words)
        assert answer.exit_code == 0, answer.output
        assert run in answer.output
    for words in (["run"], ["stop", run], ["db", "recover"]):
        answer = command(*words)
        assert answer.exception is None or isinstance(answer.exception, SystemExit), answer.exception
    answer = command("run")
    assert answer.exit_code == 2
    assert "SLIMFED_HOME" in answer.output
    assert "cannot be written" in answer.output


def test_a_locked_store_is_said_in_words(house: House, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LOCK_SECONDS", 0.1)
    monkeypatch.setenv("SLIMFED_HOME", str(house.home))
    waiting = house.new_run()
    holder = sqlite3.connect(house.home / "store.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    answer = command("stop", waiting)
    holder.close()
    assert answer.exit_code == 1
    assert "another process has kept it locked" in answer.output
    assert "sqlite3" not in answer.output


def test_a_damaged_store_leads_to_the_recovery(house: House, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIMFED_HOME", str(house.home))
    (house.home / "store.db").write_bytes(b"no database" * 1000)
    answer = command("runs")
    assert answer.exit_code == 2
    assert "db recover" in answer.output
    for path in house.home.glob("store.db*"):
        path.rename(house.home / f"damaged-{path.name}")
    assert command("db", "recover").exit_code == 0
    assert run in command("runs").output


@pytest.mark.parametrize(("told", "said"), [(signs[0], text) for signs, text in faults._FAULTS])
def test_causes_are_in_words(told: str, said: str) -> None:
    text = faults.in_words(sqlite3.OperationalError(f"(x) {told}"), database.resolve_url("sqlite", Path("/home/x")))
    assert text == f"the store 'sqlite:////home/x/store.db' failed: {said}"


def test_no_password_in_a_cause() -> None:
    url = database.resolve_url("postgresql://ada:hunter2@127.0.0.1/x", Path("/home/x"))
    assert "hunter2" not in faults.in_words(sqlite3.OperationalError("odd thing about hunter2"), url)
