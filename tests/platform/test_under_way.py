"""States and progress in words."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from slimfed.platform.format import roughly
from slimfed.platform.under_way import as_json, state_of, under_way

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def run(status: str = "running", **changes: object) -> SimpleNamespace:
    return SimpleNamespace(
        **{"status": status, "stop_requested": False, "rounds": 20, "rounds_done": 2, "wall_seconds": 30.0} | changes
    )


def progress(phase: str = "training", **changes: object) -> SimpleNamespace:
    moments = {"began_at": NOW - timedelta(seconds=100), "updated_at": NOW - timedelta(seconds=1)}
    counts = {"round": 3, "devices": 1200, "devices_done": 34, "rows": 0, "rows_done": 0}
    return SimpleNamespace(**{"phase": phase, "share": 0.5, "seconds_left": 721.0, **counts, **moments} | changes)


@pytest.mark.parametrize(
    ("row", "phase", "state"),
    [
        (run("queued"), None, "queued"),
        (run("created"), None, "preparing"),
        (run(), "preparing", "preparing"),
        (run(), "training", "running"),
        (run(), None, "running"),
        (run(stop_requested=True), "training", "stopping"),
        (run("created", stop_requested=True), None, "stopping"),
        (run("stopped"), None, "stopped"),
        (run("failed", stop_requested=True), None, "failed"),
        (run("done"), None, "done"),
    ],
)
def test_preparing_and_stopping_are_states_of_their_own(row, phase: str | None, state: str) -> None:
    assert state_of(row, None if phase is None else progress(phase)) == state


def test_a_round_is_told_in_one_line_that_counts_on_by_itself() -> None:
    told = under_way(run(), progress(), NOW)
    assert told.describe() == "round 3 of 20 · training, 34 of 1,200 devices · 2 min 10 s so far · about 12 min left"
    assert told.share == pytest.approx(2.5 / 20)
    later = under_way(run(), progress(), NOW + timedelta(seconds=60))
    assert later.describe() == "round 3 of 20 · training, 34 of 1,200 devices · 3 min 10 s so far · about 11 min left"


def test_evaluations_count_rows() -> None:
    measuring = progress("evaluating", rows=1821, rows_done=500, seconds_left=None)
    assert under_way(run(), measuring, NOW).doing == "evaluating the global model, 500 of 1,821 test texts"
    assert under_way(run(), progress("generating", rows=200, rows_done=5), NOW).doing.endswith("5 of 200 prompts")


def test_a_clock_that_is_ahead_makes_no_time_negative() -> None:
    ahead = progress(began_at=NOW + timedelta(hours=1), updated_at=NOW + timedelta(hours=1))
    assert under_way(run(), ahead, NOW).elapsed == 30.0


def test_the_round_after_the_last_is_the_last() -> None:
    assert under_way(run(rounds_done=20), progress("planning", round=21, share=0.0), NOW).round == 20


def test_json_has_numbers_and_no_words() -> None:
    found = as_json(run(), progress())
    assert found is not None
    assert {name: found[name] for name in ("phase", "round", "devices", "devices_done")} == {
        "phase": "training",
        "round": 3,
        "devices": 1200,
        "devices_done": 34,
    }
    assert as_json(run("done")) is None


@pytest.mark.parametrize(
    ("value", "text"), [(0.2, "1 s"), (45.4, "45 s"), (59.7, "1 min"), (725.0, "12 min"), (7500.0, "2 h 05 min")]
)
def test_estimates_have_one_unit(value: float, text: str) -> None:
    assert roughly(value) == text
