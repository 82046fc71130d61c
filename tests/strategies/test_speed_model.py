"""Pace: what a device was seen to need tells what it will need; a paced agent does not prolong the round."""

import json
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from round_records import BLUEPRINT, structure

from slimfed.clients.adapter import Adapter, Factors
from slimfed.strategies.bandits import Arm, BanditSpec, make_bandit, restore_bandit
from slimfed.strategies.protocols import Completion
from slimfed.strategies.speed_model import Pace, RoundCost

RANKS = (2, 4, 8)
COST = RoundCost(Adapter({"fc": Factors(np.zeros((8, 32), np.float32), np.zeros((8, 8), np.float32))}, {}))
shares = st.floats(0.0, 0.9)
paces = st.builds(Pace, *[st.floats(1e-6, 1.0)] * 3)


@given(paces, shares, shares, st.sampled_from(RANKS), st.integers(1, 10**6), st.integers(1, 10**6))
def test_what_was_seen_once_is_foreseen(pace, before, step, rank, down, up):
    load = COST.load(before, before + (1 - before) * step, rank)
    seen = COST.pace(Completion(pace.down * down, pace.dense_seconds * load, pace.up * up), load, down, up)
    assert astuple(seen) == pytest.approx(astuple(pace))
    assert seen.seconds(load, down, up) == pytest.approx(pace.seconds(load, down, up))
    assert astuple(seen.smoothed(seen)) == pytest.approx(astuple(seen))


@given(paces, st.integers(1, 8))
def test_pruning_more_and_a_smaller_rank_are_never_slower(pace, kept):
    arms = [Arm(step, rank) for step in (0.0, 0.2, 0.4) for rank in RANKS]
    times = dict(zip(arms, COST.times(pace, structure(kept), arms), strict=True))
    for arm in arms:
        for other in arms:
            if other.pruning_step >= arm.pruning_step and other.rank <= arm.rank:
                assert times[other] <= times[arm] * (1 + 1e-9)


@pytest.mark.parametrize("pacing", ["within", "fill"])
@given(
    st.lists(st.tuples(paces, st.floats(0.1, 3.0), st.floats(0.0, 1.0)), max_size=12),
    st.integers(0, 2**31 - 1),
)
def test_a_paced_agent_keeps_to_arms_that_fit_the_round(pacing, rounds, seed):
    spec = BanditSpec(name="s-ucb", pruning_step=(0.0, 0.4), ranks=RANKS, pacing=pacing, slack=1.05)
    agent, low, high = make_bandit(spec, seed), 0.05, 0.3
    for number, (pace, share, reward) in enumerate(rounds, 1):
        arms = agent.arms(low, high)
        times = dict(zip(arms, COST.times(pace, BLUEPRINT.dense(), arms), strict=True))
        limit = share * max(times.values())
        agent.foresee(times, limit)
        arm = agent.suggest(low, high)
        taken = COST.times(pace, BLUEPRINT.dense(), [arm])[0]
        assert low <= arm.pruning_step <= high
        assert taken <= max(1.05 * limit, min(times.values())) * (1 + 1e-9)
        fitting = [each.rank for each, time in times.items() if time <= 1.05 * limit]
        if pacing == "fill" and fitting:
            assert arm.rank == max(fitting)
        agent.observe(number, arm, reward)
    again = restore_bandit(json.loads(json.dumps(agent.state())))
    assert again.suggest(low, high) == agent.suggest(low, high)


@given(st.integers(0, 2**31 - 1))
def test_a_device_that_nobody_knows_begins_with_the_smallest_rank(seed):
    agent = make_bandit(BanditSpec(name="s-ucb", ranks=RANKS), seed)
    agent.foresee({}, 0.0)
    assert agent.suggest(0.0, 0.4).rank == 2
    careless = make_bandit(BanditSpec(name="s-ucb", ranks=RANKS, pacing="off"), seed)
    free = make_bandit(BanditSpec(name="s-ucb", ranks=RANKS, pacing="off"), seed)
    careless.foresee({}, 0.0)
    assert careless.suggest(0.0, 0.4) == free.suggest(0.0, 0.4)


def test_an_adapter_without_factors_has_a_load_too():
    assert RoundCost(Adapter({}, {})).load(0.0, 0.5, 4) == pytest.approx(0.75)
