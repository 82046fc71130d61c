"""Damage done for real: processes killed at the worst moments, stores that go away, disks that are full.

A run here is the server's own code (session, strategy, recorder, checkpoints, store) with nodes in its process. It is
forked from this one, so that it has the model already, and killed by SIGKILL where the test says.
"""

import errno
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import postgres
import pytest
from sqlalchemy import Engine
from sqlalchemy import event as database_event
from sqlalchemy.exc import OperationalError

from slimfed.clients.workplace import open_workplace
from slimfed.platform import checkpoint
from slimfed.platform.home import run_folder
from slimfed.platform.job import Job, load_job
from slimfed.platform.preflight import Checked
from slimfed.platform.runs import create_run, is_alive, settle
from slimfed.platform.session import serve
from slimfed.platform.sizing import Sizing
from slimfed.platform.store.patience import patiently
from slimfed.platform.store.queries import Reader
from slimfed.platform.store.store import Store
from slimfed.strategies.local_grid import LocalGrid

DEVICES, ROUNDS = 4, 3
PATIENCE = 240.0
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def job() -> Job:
    """A tiny job; its workplace is opened here once, and inherited by every run."""
    sets = [f"fleet.devices={DEVICES}", f"training.rounds={ROUNDS}", "training.local_steps=2", "training.batch_size=2"]
    sets += ["data.max_length=16", "evaluation.every=3", "evaluation.device_examples=20", "evaluation.devices=1"]
    sets += ["engine.name=cohort", "engine.cohort_size=2", "engine.dtype=fp32", "engine.workers=1"]
    job = load_job(None, sets)
    open_workplace(job.task_spec())
    return job


class House:
    """A home with a store, in which runs of one job are made, computed and looked at."""

    def __init__(self, home: Path, job: Job, url: str = "sqlite") -> None:
        self.home, self.url = home, url
        self.job = job.model_copy(update={"store": job.store.model_copy(update={"url": url})})

    def new_run(self) -> str:
        from slimfed.platform.fleet import load_fleet

        fleet = load_fleet(self.job.fleet, self.job.seed)
        checked = Checked(self.job, fleet, (1,) * DEVICES, Sizing(2, 1, 0), ())
        with Store.open(self.url, self.home) as store:
            return create_run(store, self.home, checked)[0]

    def compute(self, run: str, damage: Callable[[], None] = lambda: None) -> int:
        """Compute the run in a process of its own; returns its exit code, negative for the signal that killed it."""

        def work() -> None:
            damage()
            serve(
                LocalGrid(2),
                {"slimfed.run": run, "slimfed.home": str(self.home), "slimfed.nodes": 2, "slimfed.real": 0},
            )

        process = FORK.Process(target=work)
        process.start()
        process.join(PATIENCE)
        if process.is_alive():
            process.kill()
            pytest.fail("the run hangs")
        assert process.exitcode is not None
        return process.exitcode

    def row(self, run: str) -> Any:
        with Store.open(self.url, self.home) as store:
            return Reader(store.engine).find_run(run)

    def rounds(self, run: str) -> list[Any]:
        with Store.open(self.url, self.home) as store:
            return list(Reader(store.engine).rounds(run))

    def end(self, run: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return checkpoint.load(checkpoint.path_of(run_folder(self.home, run).checkpoints, ROUNDS))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, job: Job) -> House:
    return House(tmp_path_factory.mktemp("survival"), job)


@pytest.fixture(scope="module")
def undisturbed(house: House) -> str:
    run = house.new_run()
    assert house.compute(run) == 0
    assert house.row(run).status == "done"
    return run


def assert_same_end(house: House, run: str, other: str) -> None:
    """To the bit: every tensor, every agent, and what the store has of every round."""
    (tensors, state), (others, other_state) = house.end(run), house.end(other)
    assert state == other_state
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert np.array_equal(tensor, others[name]), name
    facts = ("round", "train_loss", "sparsity", "virtual_seconds", "virtual_clock", "bytes_up", "accepted")
    ours, theirs = ([{fact: getattr(row, fact) for fact in facts} for row in house.rounds(r)] for r in (run, other))
    assert ours == theirs
    assert [row["round"] for row in ours] == list(range(1, ROUNDS + 1))
    assert house.row(run).accuracy == house.row(other).accuracy


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_mid_round() -> None:
    """While the second round's nodes are at work: one has answered, the other has not."""
    pulled, pull = iter(range(100)), LocalGrid.pull_messages

    def pull_and_die(self: LocalGrid, ids: Any) -> Any:
        if next(pulled) == 1:
            list(pull(self, list(ids)[:1]))
            die()
        return pull(self, ids)

    LocalGrid.pull_messages = pull_and_die  # type: ignore[method-assign]


def die_in_a_transaction() -> None:
    """When the second round is half written: its row is in, its devices are not."""
    seen = iter(range(100))

    @database_event.listens_for(Engine, "before_cursor_execute")
    def look(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO assignments") and next(seen) == 1:
            die()


def die_before_the_commit() -> None:
    """When the second round is written whole, but not committed: the checkpoint is one round ahead of the store."""
    inside, seen = [], iter(range(100))

    @database_event.listens_for(Engine, "before_cursor_execute")
    def look(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO assignments") and next(seen) == 1:
            inside.append(True)

    @database_event.listens_for(Engine, "commit")
    def commit(_connection: Any) -> None:
        if inside:
            die()


def die_writing_a_checkpoint() -> None:
    """When the second checkpoint's tensors are on disk, half of them, and the rest is not."""
    seen, write = iter(range(100)), checkpoint._write

    def write_half(path: Path, content: bytes) -> None:
        if path.name == "tensors.safetensors" and next(seen) == 1:
            path.write_bytes(content[: len(content) // 2])
            die()
        write(path, content)

    checkpoint._write = write_half


KILLS = (die_in_mid_round, die_in_a_transaction, die_before_the_commit, die_writing_a_checkpoint)


@pytest.mark.parametrize("damage", KILLS, ids=lambda damage: damage.__name__)
def test_a_killed_server_resumes_to_the_same_bits(house: House, undisturbed: str, damage: Callable[[], None]) -> None:
    run = house.new_run()
    assert house.compute(run, damage) == -signal.SIGKILL
    row = house.row(run)
    assert (row.status, row.rounds_done) == ("running", 1), "nothing recorded is lost, nothing half recorded is there"
    assert not is_alive(row)
    assert house.compute(run) == 0
    assert house.row(run).status == "done"
    assert_same_end(house, run, undisturbed)


def test_a_disk_that_is_full_ends_the_run_with_its_cause_and_loses_nothing(house: House, undisturbed: str) -> None:
    def fill() -> None:
        seen, write = iter(range(100)), checkpoint._write

        def refuse(path: Path, content: bytes) -> None:
            if next(seen) >= 3:  # the second checkpoint
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            write(path, content)

        checkpoint._write = refuse

    run = house.new_run()
    assert house.compute(run, fill) == 1
    row = house.row(run)
    assert (row.status, row.rounds_done) == ("failed", 1)
    assert "No space left on device" in row.cause
    assert house.compute(run) == 0
    assert_same_end(house, run, undisturbed)


def test_a_clock_that_jumps_changes_no_result(house: House, undisturbed: str) -> None:
    """The system's clock goes back by a day after the first look at it."""

    def skew() -> None:
        real = time.time
        time.time = lambda: real() - 86_400.0

    run = house.new_run()
    assert house.compute(run, skew) == 0
    assert_same_end(house, run, undisturbed)


def test_of_two_that_resume_at_once_one_does(house: House, undisturbed: str) -> None:
    run = house.new_run()
    with Store.open(house.url, house.home) as store:
        found = Reader(store.engine).find_run(run)
        results = []
        threads = [threading.Thread(target=lambda: results.append(store.take_over(found))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(results) == [False, False, False, True]


def test_a_run_whose_process_is_gone_is_said_to_have_failed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slimfed.platform.runs._LAST_WORDS_SECONDS", -60.0)
    run = house.new_run()

    def begin() -> None:
        with Store.open(house.url, house.home) as store:
            store.mark_running(run)
        die()

    process = FORK.Process(target=begin)
    process.start()
    process.join(60)
    with Store.open(house.url, house.home) as store:
        settle(store)
    row = house.row(run)
    assert row.status == "failed"
    assert "ended without a word" in row.cause


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    if postgres.binaries() is None:
        reason = "PostgreSQL is not installed (Debian: apt-get install postgresql)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with postgres.private() as server:
        yield server


def test_a_postgresql_that_restarts_in_mid_run_costs_nothing(
    server: postgres.Server, tmp_path: Path, job: Job, house: House, undisturbed: str
) -> None:
    """It is stopped at once, connections and all, when the second round is being written, and comes back later."""
    other = House(tmp_path, job, f"{server.address}/postgres")
    run = other.new_run()
    seen = iter(range(100))

    def restart() -> None:
        @database_event.listens_for(Engine, "before_cursor_execute")
        def look(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            if statement.startswith("INSERT INTO assignments") and next(seen) == 1:
                server.stop()
                threading.Timer(1.0, server.start).start()

    assert other.compute(run, restart) == 0
    assert other.row(run).status == "done"
    ours, theirs = other.end(run), house.end(undisturbed)
    assert ours[1] == theirs[1]
    assert all(np.array_equal(ours[0][name], tensor) for name, tensor in theirs[0].items())
    assert [row.round for row in other.rounds(run)] == list(range(1, ROUNDS + 1)), "nothing is counted twice"


def test_patience_ends() -> None:
    def fail() -> None:
        raise OperationalError("SELECT 1", None, Exception("server closed the connection"))

    with pytest.raises(OperationalError):
        patiently(fail, 0.0)
