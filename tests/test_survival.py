"""Damage done for real: processes killed at the worst moments, stores that go away, disks that are full.

A run is computed in a process of its own (`helpers/house.py`), and killed by SIGKILL where the test says.
"""

import errno
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import postgres
import pytest
from house import FORK, ROUNDS, House, die, die_in_mid_round, tiny_job
from missing import missing
from sqlalchemy import Engine
from sqlalchemy import event as database_event
from sqlalchemy.exc import OperationalError

from slimfed.platform.job.job import Job
from slimfed.platform.launch.liveness import is_alive, settle
from slimfed.platform.server import checkpoint
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.retry import patiently
from slimfed.platform.store.writer import Store


@pytest.fixture(scope="module")
def job() -> Job:
    return tiny_job()


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
        np.testing.assert_array_equal(tensor, others[name], err_msg=name)
    facts = ("round", "train_loss", "sparsity", "virtual_seconds", "virtual_clock", "bytes_up", "accepted")
    ours, theirs = ([{fact: getattr(row, fact) for fact in facts} for row in house.rounds(r)] for r in (run, other))
    assert ours == theirs
    assert [row["round"] for row in ours] == list(range(1, ROUNDS + 1))
    assert house.row(run).accuracy == house.row(other).accuracy


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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 32 MB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, check=False, capture_output=True, timeout=30).returncode:
        missing("only root may mount a small disk")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True, timeout=30)


def test_a_run_of_a_part_of_its_fleet_is_resumed_to_the_same_devices_and_bits(tmp_path: Path) -> None:
    """Two of four devices by their losses, one of which comes late: what the selection knows is in the checkpoint."""
    trace = tmp_path / "trace.csv"
    trace.write_text("device,from,until\n0,1000,inf\n1,1000,inf\n2,1000,inf\n3,1000.5,inf\n", encoding="utf-8")
    part = ("fleet.participation=2", "fleet.selection=power-of-choice", f"fleet.availability={trace}")
    house = House(tmp_path, tiny_job(*part))
    whole, killed = house.new_run(), house.new_run()
    assert house.compute(whole) == 0
    assert house.compute(killed, die_in_a_transaction) == -signal.SIGKILL
    assert len(house.rounds(killed)) == 1
    assert house.compute(killed) == 0
    assert_same_end(house, killed, whole)
    asked = [[[row.device for row in house.devices(run, n)] for n in (1, 2, 3)] for run in (whole, killed)]
    assert asked[0] == asked[1]
    assert [len(devices) for devices in asked[0]] == [2, 2, 2]
    assert 3 not in asked[0][0]
    for row in house.rounds(whole):
        assert (row.asked, row.waited_seconds) == (2, 1000.0 if row.round == 1 else 0.0)
    assert house.rounds(whole)[0].available == 3


def test_a_disk_that_is_full_ends_the_run_and_loses_nothing(small_disk: Path, job: Job, undisturbed: str, house: House):
    """Full to the last byte when the second checkpoint is written: the store on it cannot even say that it failed."""
    there, filler = House(small_disk / "home", job), small_disk / "filler"
    there.home.mkdir()

    def fill() -> None:
        seen, write = iter(range(100)), checkpoint._write

        def write_on_a_full_disk(path: Path, content: bytes) -> None:
            if next(seen) == 3:  # the first file of the second checkpoint
                with suppress(OSError), filler.open("wb", buffering=0) as file:
                    while True:
                        file.write(bytes(4096))
            write(path, content)

        checkpoint._write = write_on_a_full_disk

    run = there.new_run()
    assert there.compute(run, fill) == 1
    filler.unlink()
    row = there.row(run)
    assert row.rounds_done == 1
    assert not is_alive(row), "so it is said to have failed, and can be resumed"
    assert there.compute(run) == 0
    (tensors, state), (others, other) = there.end(run), house.end(undisturbed)
    assert state == other
    assert all(np.array_equal(tensors[name], other) for name, other in others.items())


def test_a_write_that_fails_ends_the_run_with_its_cause(house: House, undisturbed: str) -> None:
    """As on a disk of its own for checkpoints, while the store has room."""

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
    monkeypatch.setattr("slimfed.platform.launch.liveness._LAST_WORDS_SECONDS", -60.0)
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
        missing("PostgreSQL is not installed (Debian: apt-get install postgresql)")
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
