"""Pruning bounds lead to the target and never past it; the learning rate falls to zero without a gap."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfed.clients.spec import TrainingSpec
from slimfed.strategies.schedule import learning_rate, pruning_bounds, sparsity_after, step_to

targets = st.floats(0.0, 0.95)
ranges = st.tuples(st.floats(0, 0.9), st.floats(0, 0.9)).map(lambda pair: tuple(sorted(pair)))


@given(targets, st.integers(1, 30), st.floats(0.05, 1.0), ranges, st.data())
def test_every_path_within_the_bounds_reaches_the_target_in_time_and_never_passes_it(
    target, rounds, until, step_range, data
):
    sparsity = 0.0
    for round in range(1, rounds + 1):
        low, high = pruning_bounds(sparsity, target, round, rounds, until, step_range)
        assert 0.0 <= low <= high < 1.0
        step = data.draw(st.one_of(st.just(low), st.just(high), st.floats(low, high)))
        before, sparsity = sparsity, sparsity_after(sparsity, step)
        assert before - 1e-12 <= sparsity <= target + 1e-9
        if round >= math.ceil(until * rounds):
            assert sparsity == pytest.approx(target, abs=1e-9)
        sparsity = min(sparsity, target)


@given(targets, st.integers(1, 30), st.floats(0.05, 1.0), ranges, st.sets(st.integers(1, 30)))
def test_a_device_that_misses_rounds_still_arrives(target, rounds, until, step_range, missed):
    sparsity = 0.0
    for round in range(1, rounds + 1):
        low, _ = pruning_bounds(sparsity, target, round, rounds, until, step_range)
        if round not in missed or round == rounds:
            sparsity = min(target, sparsity_after(sparsity, low))
    assert sparsity == pytest.approx(target, abs=1e-9)


@given(targets, st.integers(2, 30), ranges, st.data())
def test_steps_stay_in_the_range_whenever_the_target_allows(target, rounds, step_range, data):
    round = data.draw(st.integers(1, rounds))
    low, high = pruning_bounds(0.0, target, round, rounds, 1.0, step_range)
    reachable = 1 - (1 - step_range[1]) ** (rounds - round + 1)
    if target < reachable - 1e-9:
        assert high <= step_range[1] + 1e-12
        assert low >= min(step_range[0], step_to(0.0, target)) - 1e-12


def test_bounds_by_hand():
    assert pruning_bounds(0.0, 0.5, 1, 10, 0.6, (0.0, 0.4)) == (0.0, 0.4)
    assert pruning_bounds(0.4, 0.5, 2, 10, 0.6, (0.0, 0.4)) == pytest.approx((0.0, 1 / 6))
    assert pruning_bounds(0.0, 0.5, 5, 10, 0.6, (0.0, 0.4)) == pytest.approx((1 / 6, 0.4))
    assert pruning_bounds(0.0, 0.5, 6, 10, 0.6, (0.0, 0.4)) == pytest.approx((0.5, 0.5))
    assert pruning_bounds(0.0, 0.5, 1, 5000, 0.6, (0.0, 0.4)) == (0.0, 0.4), "0.6 ** 2999 is nothing"
    assert pruning_bounds(0.5, 0.5, 3, 10, 0.6, (0.1, 0.4)) == (0.0, 0.0)
    assert pruning_bounds(0.0, 0.75, 1, 2, 1.0, (0.0, 0.4)) == pytest.approx((0.5, 0.5))  # out of reach: even steps


def test_a_share_that_is_whole_up_to_rounding_gets_no_extra_round():
    assert 0.55 * 100 > 55
    assert pruning_bounds(0.0, 0.5, 55, 100, 0.55, (0.0, 0.4)) == pytest.approx((0.5, 0.5))


@given(st.integers(1, 40), st.sampled_from(["constant", "linear", "cosine"]))
def test_learning_rate_is_continuous_and_decays_to_zero(rounds, schedule):
    spec = TrainingSpec(rounds=rounds, learning_rate=0.01, schedule=schedule)
    pairs = [learning_rate(spec, round) for round in range(1, rounds + 1)]
    assert pairs[0][0] == pytest.approx(0.01)
    assert all(a[1] == pytest.approx(b[0]) for a, b in pairwise(pairs))
    assert all(end <= start for start, end in pairs)
    assert pairs[-1][1] == pytest.approx(0.01 if schedule == "constant" else 0.0, abs=1e-12)


def test_learning_rate_half_way():
    for schedule in ("linear", "cosine"):
        spec = TrainingSpec(rounds=2, learning_rate=0.01, schedule=schedule)
        assert learning_rate(spec, 1)[1] == pytest.approx(0.005)
