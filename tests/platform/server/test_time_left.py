"""How long a run still takes, by what it has done so far."""

import pytest

from slimfed.platform.server.time_left import TimeLeft
from slimfed.strategies.progress import Moment


def training(round: int, trained: float, seconds: float) -> Moment:
    return Moment("training", round, 40, trained, seconds=seconds)


def test_nothing_is_known_before_a_device_is_trained() -> None:
    left = TimeLeft(10)
    assert left.estimate(Moment("waiting"), 0.0).seconds_left is None
    assert left.estimate(training(1, 0.0, 60.0), 60.0).seconds_left is None


def test_the_first_round_is_foreseen_by_the_devices_that_are_trained_without_its_start() -> None:
    """The node needed 100 s to start; then a device takes half a second."""
    left = TimeLeft(10)
    left.estimate(training(1, 1.0, 100.0), 100.0)
    estimate = left.estimate(training(1, 21.0, 110.0), 110.0)
    assert estimate.seconds_left == pytest.approx(19 * 0.5 + 9 * 40 * 0.5)
    assert estimate.share == pytest.approx(110.0 / 119.5)


def test_an_evaluation_is_foreseen_by_its_rows() -> None:
    left = TimeLeft(1)
    left.estimate(training(1, 10.0, 5.0), 5.0)
    left.estimate(training(1, 40.0, 35.0), 35.0)
    left.estimate(Moment("evaluating", 1, 40, 40.0, 100, 1000, 36.0), 36.0)
    assert left.estimate(Moment("evaluating", 1, 40, 40.0, 300, 1000, 38.0), 38.0).seconds_left == pytest.approx(7.0)


def test_later_rounds_count_and_the_first_does_not() -> None:
    left, now = TimeLeft(10), 0.0
    for round, took in ((1, 500.0), (2, 10.0), (3, 12.0), (4, 11.0)):
        left.estimate(Moment("planning", round, 40), now)
        now += took
    estimate = left.estimate(Moment("planning", 5, 40), now)
    assert estimate.seconds_left == pytest.approx(6 * 11.0)
    assert left.estimate(Moment("aggregating", 5, 40, 40.0, seconds=8.0), now + 8).seconds_left == pytest.approx(3 + 55)


def test_rounds_that_pass_between_two_looks_count() -> None:
    left = TimeLeft(100)
    left.estimate(Moment("planning", 1, 40), 0.0)
    left.estimate(Moment("planning", 2, 40), 30.0)
    left.estimate(Moment("planning", 12, 40), 35.0)
    assert left.estimate(Moment("planning", 12, 40), 35.0).seconds_left == pytest.approx(89 * 0.5)


def test_a_resumed_run_leaves_its_process_first_round_out_too() -> None:
    left = TimeLeft(10)
    left.estimate(Moment("planning", 7, 40), 0.0)
    assert left.estimate(Moment("planning", 8, 40), 100.0).seconds_left is None
    assert left.estimate(Moment("planning", 9, 40), 104.0).seconds_left == pytest.approx(2 * 4.0)


def test_a_round_is_never_over_before_it_ends() -> None:
    left, shares = TimeLeft(2), []
    for done in range(41):
        shares.append(left.estimate(training(1, float(done), done * 1.0), done * 1.0).share)
    assert shares == sorted(shares)
    assert shares[-1] < 1


def test_a_resumed_run_begins_with_what_an_earlier_process_measured() -> None:
    left = TimeLeft(10, before=4.0)
    assert left.estimate(Moment("planning", 7, 40), 0.0).seconds_left == pytest.approx(4 * 4.0)
    left.estimate(training(7, 1.0, 50.0), 50.0)
    assert left.estimate(training(7, 11.0, 60.0), 60.0).seconds_left == pytest.approx(29 + 3 * 40)


def test_sums_that_differ_in_their_last_bits_are_no_progress() -> None:
    left = TimeLeft(2)
    for trained, now in ((1.0, 10.0), (1.0 + 2.3e-16, 12.0), (1.0 + 1e-9, 14.0)):
        left.estimate(training(1, trained, now), now)
    assert left.estimate(training(1, 1.0 + 2e-9, 15.0), 15.0).seconds_left is None
    seconds_left = left.estimate(training(1, 2.0, 20.0), 20.0).seconds_left
    assert seconds_left == pytest.approx(38 * 10.0 + 40 * 10.0)
