"""What the launcher makes of a run that goes wrong, with its processes and the store played by test doubles."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from slimfed.platform.launch import launcher
from slimfed.platform.launch.flwr_cli import LaunchError
from slimfed.platform.launch.launcher import FinalStatus, LaunchPlan, Look, launch
from slimfed.platform.launch.workers import Sizing


class FakeRuntime:
    """Processes that do what the test says; ``stopped`` counts how often they were ended."""

    illness: str | None = None
    refusal: str | None = None
    stopped = 0

    def __init__(self, log: Path, sizing: Sizing, environment: object) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "FakeRuntime":
        return self

    def __exit__(self, *_: object) -> None:
        type(self).stopped += 1

    def start(self, run: str, home: Path) -> None:
        if self.refusal:
            raise LaunchError(self.refusal)

    def ailment(self) -> str | None:
        return self.illness

    def last_words(self) -> str:
        return "one | two"


class FakeJournal:
    """A run whose state is what ``script`` says at each look; it remembers how it was ended."""

    def __init__(self, script: Callable[[int], Look]) -> None:
        self.script = script
        self.looks = 0
        self.asked = 0
        self.ended: tuple[str, str] | None = None

    def look(self) -> Look:
        self.looks += 1
        return self.script(self.looks)

    def request_stop(self) -> None:
        self.asked += 1

    def finish(self, status: FinalStatus, cause: str) -> None:
        self.ended = (status, cause)


RUNNING = Look("running", began=True, stopping=False)
STARTING = Look("running", began=False, stopping=False)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> type[FakeRuntime]:
    fake = type("Fake", (FakeRuntime,), {})
    monkeypatch.setattr(launcher, "Simulation", fake)
    for name in ("_POLL_SECONDS", "_HEALTH_SECONDS"):
        monkeypatch.setattr(launcher, name, 0.01)
    return fake


@pytest.fixture
def plan(tmp_path: Path) -> LaunchPlan:
    return LaunchPlan("run", tmp_path, tmp_path / "run", Sizing(1, 1, 0))


def test_a_run_that_ends_by_itself_is_only_watched(runtime: type[FakeRuntime], plan: LaunchPlan) -> None:
    journal = FakeJournal(lambda n: RUNNING if n < 5 else Look("done", began=True, stopping=False))
    outcome = launch(plan, journal)
    assert (outcome.status, outcome.interrupted) == ("done", False)
    assert journal.ended is None
    assert runtime.stopped == 1


def test_a_dead_process_is_the_cause(runtime: type[FakeRuntime], plan: LaunchPlan) -> None:
    runtime.illness = "the process of the run ended unexpectedly: out of memory"
    journal = FakeJournal(lambda _: RUNNING)
    assert launch(plan, journal).status == "failed"
    assert journal.ended == ("failed", "the process of the run ended unexpectedly: out of memory")
    assert runtime.stopped == 1


def test_the_last_word_of_a_server_counts(runtime: type[FakeRuntime], plan: LaunchPlan) -> None:
    """It wrote "done" and ended between two looks: no failure."""
    runtime.illness = "the process of the run ended unexpectedly: its log is empty"
    journal = FakeJournal(lambda n: RUNNING if n == 1 else Look("done", began=True, stopping=False))
    assert launch(plan, journal).status == "done"
    assert journal.ended is None


def test_a_server_that_never_begins_meets_a_deadline(
    runtime: type[FakeRuntime], plan: LaunchPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "_START_SECONDS", 0.1)
    journal = FakeJournal(lambda _: STARTING)
    assert launch(plan, journal).status == "failed"
    assert journal.ended is not None
    assert "did not begin" in journal.ended[1]
    assert "one | two" in journal.ended[1]


def test_a_refused_app_fails_the_run(runtime: type[FakeRuntime], plan: LaunchPlan) -> None:
    runtime.refusal = "flwr run failed: no licence"
    journal = FakeJournal(lambda _: STARTING)
    assert launch(plan, journal).status == "failed"
    assert journal.ended == ("failed", "flwr run failed: no licence")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_the_run_to_stop(runtime: type[FakeRuntime], plan: LaunchPlan, number: int) -> None:
    def interrupted(look: int) -> Look:
        if look == 2:
            os.kill(os.getpid(), number)
        return Look("stopped", began=True, stopping=False) if journal.asked else RUNNING

    journal = FakeJournal(interrupted)
    before = signal.getsignal(number)
    outcome = launch(plan, journal)
    assert (outcome.status, outcome.interrupted) == ("stopped", True)
    assert journal.ended is None
    assert signal.getsignal(number) is before


def test_a_request_that_got_lost_is_made_again(runtime: type[FakeRuntime], plan: LaunchPlan) -> None:
    """A server that begins clears earlier requests."""

    def forgetful(look: int) -> Look:
        if look == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return Look("stopped", began=True, stopping=False) if journal.asked >= 3 else RUNNING

    journal = FakeJournal(forgetful)
    assert launch(plan, journal).status == "stopped"


def test_a_run_that_does_not_react_is_ended(
    runtime: type[FakeRuntime], plan: LaunchPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "_STOP_SECONDS", 0.1)
    journal = FakeJournal(lambda _: Look("running", began=True, stopping=True))
    outcome = launch(plan, journal)
    assert (outcome.status, outcome.interrupted) == ("stopped", False)
    assert journal.ended is not None
    assert "did not react" in journal.ended[1]
    assert runtime.stopped == 1


def test_a_second_signal_ends_the_run_at_once(runtime: type[FakeRuntime], plan: LaunchPlan) -> None:
    def stubborn(look: int) -> Look:
        if look in (2, 4):
            os.kill(os.getpid(), signal.SIGINT)
        return Look("running", began=True, stopping=look > 2)

    journal = FakeJournal(stubborn)
    assert launch(plan, journal).status == "stopped"
    assert journal.ended == ("stopped", "ended by a second interrupt")


def test_a_run_that_has_not_begun_is_stopped_at_once(runtime: type[FakeRuntime], plan: LaunchPlan) -> None:
    journal = FakeJournal(lambda _: Look("running", began=False, stopping=True))
    assert launch(plan, journal).status == "stopped"
    assert journal.ended == ("stopped", "asked to stop before it began")
