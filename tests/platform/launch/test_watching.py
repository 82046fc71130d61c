"""What the launcher makes of a run that goes wrong, with Flower and the store played by test doubles."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slimfed.platform.launch import launcher
from slimfed.platform.launch.launcher import FinalStatus, LaunchPlan, Look, launch
from slimfed.platform.launch.superlink import AppStatus, LaunchError
from slimfed.platform.launch.workers import Sizing


class FakeSuperLink:
    """A SuperLink that does what the test says; ``stopped`` counts how often it was left."""

    alive = True
    process: object | None = object()
    app = AppStatus("running", "N/A")
    refusal: str | None = None
    going = False
    silent = False
    stopped = 0

    def __init__(self, home: Path, log: Path, environment: object) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "FakeSuperLink":
        return self

    def __exit__(self, *_: object) -> None:
        type(self).stopped += 1

    def submit(self, app: Path, settings: Any, **_: object) -> str:
        assert (app / "pyproject.toml").is_file()
        if self.refusal:
            raise LaunchError(self.refusal)
        return "42"

    def app_process(self) -> object | None:
        return self.process

    def status(self, _run: str) -> AppStatus:
        if self.silent:
            raise LaunchError("flwr ls failed: unavailable")
        return self.app

    def ended_within(self, _seconds: float) -> bool:
        return self.going

    def app_log(self, _run: str) -> str:
        return "one\ntwo\n"

    def last_lines(self) -> str:
        return "address in use"


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
def superlink(monkeypatch: pytest.MonkeyPatch) -> type[FakeSuperLink]:
    fake = type("Fake", (FakeSuperLink,), {})
    monkeypatch.setattr(launcher, "SuperLink", fake)
    for name in ("_POLL_SECONDS", "_HEALTH_SECONDS"):
        monkeypatch.setattr(launcher, name, 0.01)
    return fake


@pytest.fixture
def plan(tmp_path: Path) -> LaunchPlan:
    return LaunchPlan("run", tmp_path, tmp_path / "run", Sizing(1, 1, 0))


def test_a_run_that_ends_by_itself_is_only_watched(superlink: type[FakeSuperLink], plan: LaunchPlan) -> None:
    journal = FakeJournal(lambda n: RUNNING if n < 5 else Look("done", began=True, stopping=False))
    outcome = launch(plan, journal)
    assert (outcome.status, outcome.interrupted) == ("done", False)
    assert journal.ended is None
    assert superlink.stopped == 1


def test_a_dead_superlink_is_the_cause(superlink: type[FakeSuperLink], plan: LaunchPlan) -> None:
    superlink.alive = False
    journal = FakeJournal(lambda _: RUNNING)
    assert launch(plan, journal).status == "failed"
    assert journal.ended == ("failed", "the Flower SuperLink ended unexpectedly: address in use")


@pytest.mark.parametrize(("going", "cause"), [(True, "SuperLink ended unexpectedly"), (False, "flwr ls failed")])
def test_a_superlink_that_is_going_down_is_the_cause_not_its_silence(
    superlink: type[FakeSuperLink], plan: LaunchPlan, going: bool, cause: str
) -> None:
    superlink.process, superlink.silent, superlink.going = None, True, going
    journal = FakeJournal(lambda _: RUNNING)
    assert launch(plan, journal).status == "failed"
    assert journal.ended is not None
    assert cause in journal.ended[1]


@pytest.mark.parametrize(
    ("details", "words"), [("Simulation failed with exception: no ray", "no ray"), ("N/A", "without a word")]
)
def test_a_dead_server_app_is_the_cause(
    superlink: type[FakeSuperLink], plan: LaunchPlan, details: str, words: str
) -> None:
    def dies(look: int) -> Look:
        if look == 3:
            superlink.process = None
            superlink.app = AppStatus("finished:failed", details)
        return RUNNING

    journal = FakeJournal(dies)
    assert launch(plan, journal).status == "failed"
    assert journal.ended is not None
    assert words in journal.ended[1]
    assert (plan.logs / "app.log").read_text() == "one\ntwo\n"


def test_the_last_word_of_a_server_app_counts(superlink: type[FakeSuperLink], plan: LaunchPlan) -> None:
    """It wrote "done" and ended between two looks: no failure."""
    superlink.process, superlink.app = None, AppStatus("finished:completed", "N/A")
    journal = FakeJournal(lambda n: RUNNING if n == 1 else Look("done", began=True, stopping=False))
    assert launch(plan, journal).status == "done"
    assert journal.ended is None


def test_a_server_app_that_never_begins_meets_a_deadline(
    superlink: type[FakeSuperLink], plan: LaunchPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "_START_SECONDS", 0.1)
    journal = FakeJournal(lambda _: STARTING)
    assert launch(plan, journal).status == "failed"
    assert journal.ended is not None
    assert "did not begin" in journal.ended[1]
    assert "one | two" in journal.ended[1]


def test_a_refused_app_fails_the_run(superlink: type[FakeSuperLink], plan: LaunchPlan) -> None:
    superlink.refusal = "flwr run failed: no licence"
    journal = FakeJournal(lambda _: STARTING)
    assert launch(plan, journal).status == "failed"
    assert journal.ended == ("failed", "flwr run failed: no licence")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_the_run_to_stop(superlink: type[FakeSuperLink], plan: LaunchPlan, number: int) -> None:
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


def test_a_request_that_got_lost_is_made_again(superlink: type[FakeSuperLink], plan: LaunchPlan) -> None:
    """A server that begins clears earlier requests."""

    def forgetful(look: int) -> Look:
        if look == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return Look("stopped", began=True, stopping=False) if journal.asked >= 3 else RUNNING

    journal = FakeJournal(forgetful)
    assert launch(plan, journal).status == "stopped"


def test_a_run_that_does_not_react_is_ended(
    superlink: type[FakeSuperLink], plan: LaunchPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "_STOP_SECONDS", 0.1)
    journal = FakeJournal(lambda _: Look("running", began=True, stopping=True))
    outcome = launch(plan, journal)
    assert (outcome.status, outcome.interrupted) == ("stopped", False)
    assert journal.ended is not None
    assert "did not react" in journal.ended[1]
    assert superlink.stopped == 1


def test_a_second_signal_ends_the_run_at_once(superlink: type[FakeSuperLink], plan: LaunchPlan) -> None:
    def stubborn(look: int) -> Look:
        if look in (2, 4):
            os.kill(os.getpid(), signal.SIGINT)
        return Look("running", began=True, stopping=look > 2)

    journal = FakeJournal(stubborn)
    assert launch(plan, journal).status == "stopped"
    assert journal.ended == ("stopped", "ended by a second interrupt")


def test_a_run_that_has_not_begun_is_stopped_at_once(superlink: type[FakeSuperLink], plan: LaunchPlan) -> None:
    journal = FakeJournal(lambda _: Look("running", began=False, stopping=True))
    assert launch(plan, journal).status == "stopped"
    assert journal.ended == ("stopped", "asked to stop before it began")
