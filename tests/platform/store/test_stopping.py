"""Stop holds at any instant: every interleaving of one request with the steps by which a run is started."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from slimfed.platform.job.job import job_to_dict, load_job
from slimfed.platform.launch import liveness
from slimfed.platform.launch.liveness import ask_to_stop
from slimfed.platform.store.database import writing
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.schema import Run
from slimfed.platform.store.writer import Store

RUN = "20260101-120000-abc"


class Start:
    """The steps of the processes that start a run; each is one transaction. A step that is refused ends the start."""

    def __init__(self, store: Store, status: str) -> None:
        self.store, self.reader = store, Reader(store.engine)
        store.create_run(RUN, job_to_dict(load_job(None)), Path("/nowhere"), status="queued")
        if status != "queued":
            store.claim(RUN)
        if status == "stopped":
            store.finish(RUN, "stopped", "asked to stop")
            store.enqueue(self.reader.find_run(RUN))
        self.seen: Any = None
        self.computes = False

    def queue_claims(self) -> bool:
        return self.store.claim(RUN)

    def process_reads(self) -> bool:
        self.seen = self.reader.find_run(RUN)
        return self.seen.status == "created"

    def process_takes_over(self) -> bool:
        return self.store.take_over(self.seen)

    def launcher_marks(self) -> bool:
        return self.store.mark_running(RUN)

    def server_marks(self) -> bool:
        return self.store.mark_running(RUN)

    def server_asks(self) -> bool:
        self.computes = not self.store.stop_requested(RUN)
        if not self.computes:
            self.store.finish(RUN, "stopped", "asked to stop")
        return self.computes

    def steps(self, first: str) -> list[Callable[[], bool]]:
        every = [
            self.queue_claims,
            self.process_reads,
            self.process_takes_over,
            self.launcher_marks,
            self.server_marks,
            self.server_asks,
        ]
        return every[1:] if first == "created" else every


@pytest.fixture(autouse=True)
def living(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is alive once a process has taken it over: this one."""
    monkeypatch.setattr(liveness, "is_computed", lambda folder: False)


@pytest.mark.parametrize("read_before", [0, 1, 2], ids=lambda n: f"the page is {n} steps old")
@pytest.mark.parametrize("status", ["queued", "created", "stopped"])
@pytest.mark.parametrize("pressed", range(7), ids=lambda n: f"pressed before step {n}")
def test_a_stop_at_any_instant_holds(tmp_path: Path, status: str, pressed: int, read_before: int) -> None:
    with Store.open("sqlite", tmp_path) as store:
        start = Start(store, status)
        steps = start.steps(status)
        rows, goes_on = [], True
        for number in range(len(steps) + 1):
            rows.append(start.reader.find_run(RUN))
            if number == pressed:
                ask_to_stop(store, rows[max(number - read_before, 0)])
            if number < len(steps) and goes_on:
                goes_on = steps[number]()
        if pressed >= len(steps):  # it computes already: the next look at the store tells it
            ask_to_stop(store, start.reader.find_run(RUN))
            start.server_asks()
        assert not start.computes
        assert start.reader.find_run(RUN).status == "stopped"


def test_a_run_that_has_ended_is_computed_no_more(tmp_path: Path) -> None:
    with Store.open("sqlite", tmp_path) as store:
        Start(store, "created")
        assert store.mark_running(RUN)
        assert not store.stop_requested(RUN)
        store.finish(RUN, "failed", "its process ended without a word")
        assert store.stop_requested(RUN), "a process that was taken for dead stops at its next look"
        assert not store.mark_running(RUN)


def test_a_request_survives_the_start_and_not_the_resume(tmp_path: Path) -> None:
    with Store.open("sqlite", tmp_path) as store:
        start = Start(store, "created")
        assert store.mark_running(RUN)
        store.request_stop(RUN)
        assert store.mark_running(RUN)
        assert store.stop_requested(RUN)
        store.finish(RUN, "stopped", "asked to stop")
        assert store.take_over(start.reader.find_run(RUN))
        assert not store.stop_requested(RUN)


def test_a_resume_through_the_queue_never_takes_a_living_run(tmp_path: Path) -> None:
    """Its check takes time; somebody else may resume the run meanwhile."""
    with Store.open("sqlite", tmp_path) as store:
        start = Start(store, "created")
        store.finish(RUN, "failed", "killed")
        seen = start.reader.find_run(RUN)
        assert store.take_over(seen)
        assert not store.enqueue(seen)
        assert start.reader.find_run(RUN).status == "running"


def test_a_run_that_was_resumed_meanwhile_is_not_marked_as_dead(tmp_path: Path) -> None:
    with Store.open("sqlite", tmp_path) as store:
        start = Start(store, "created")
        assert store.mark_running(RUN)
        with writing(store.engine) as connection:
            connection.execute(update(Run).where(Run.id == RUN).values(pid=1))
        dead = start.reader.find_run(RUN)
        assert store.take_over(dead)
        assert not store.end_without_process(dead, "failed", "its process ended without a word")
        assert not store.stop_requested(RUN)
