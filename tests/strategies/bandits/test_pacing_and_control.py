"""Every agent can be paced, and every agent can be told permuted outcomes."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfed.strategies.bandits import BANDITS, Bandit, BanditSpec, Offer, Pull, make_agent
from slimfed.strategies.bandits.control import Shuffle

OF_DEVICES = sorted(name for name, kind in BANDITS.items() if issubclass(kind, Bandit) and not kind.foresees)
RANKS, STEPS = (2, 4, 8), (5, 20)


def offers(paces, known=True):
    """Devices whose seconds grow with rank and local steps, and fall with pruning."""

    def times(pace):
        return lambda arms: np.array([pace * arm.rank * arm.local_steps * (1.1 - arm.pruning_step) for arm in arms])

    return [Offer(n, 0.0, 0.3, times(pace) if known else None) for n, pace in enumerate(paces)]


@pytest.mark.parametrize("name", OF_DEVICES)
@given(paces=st.lists(st.floats(0.01, 10.0), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_a_paced_agent_does_not_prolong_the_round(name, paces, seed):
    for pacing in ("within", "fill"):
        spec = BanditSpec(name=name, ranks=RANKS, local_steps=STEPS, pacing=pacing, slack=1.5)
        asked = offers(paces)
        arms = make_agent(spec, seed, len(paces)).suggest(asked)
        shortest = max(paces) * 2 * 5 * 0.8  # the slowest device's fastest arm
        for offer, arm in zip(asked, arms, strict=True):
            taken = offer.times([arm])[0]
            least = offer.times([type(arm)(arm.pruning_step, 2, 5)])[0]
            assert taken <= max(1.5 * shortest, least) * (1 + 1e-9)


@pytest.mark.parametrize("name", OF_DEVICES)
def test_without_times_a_paced_device_begins_with_the_smallest(name):
    spec = BanditSpec(name=name, ranks=RANKS, local_steps=STEPS, pacing="within")
    arms = make_agent(spec, 1, 5).suggest(offers([1.0] * 5, known=False))
    assert {(arm.rank, arm.local_steps) for arm in arms} == {(2, 5)}


def test_agents_pace_as_they_usually_do_unless_the_job_says_otherwise():
    assert make_agent(BanditSpec(name="s-ucb"), 1, 1).pacing == "fill"
    assert make_agent(BanditSpec(name="random"), 1, 1).pacing == "off"
    free = make_agent(BanditSpec(name="fixed", fixed_rank=8, ranks=RANKS, local_steps=STEPS), 1, 2)
    assert {arm.rank for arm in free.suggest(offers([1.0, 100.0]))} == {8}


def pulls(values, first=0):
    return [Pull(first + n, f"arm {first + n}", v, 2 * v, 3 * v, 4 * v, 5 * v) for n, v in enumerate(values)]


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=8), min_size=1, max_size=4), st.integers(0, 99))
def test_shuffled_pulls_keep_their_arms_and_get_outcomes_that_were_seen(rounds, seed):
    shuffle, again, seen = Shuffle(seed), Shuffle(seed), Counter()
    for values in rounds:
        seen.update(values)
        given_pulls = pulls(values)
        found = shuffle(given_pulls)
        assert [(p.device, p.arm, p.seconds) for p in found] == [(p.device, p.arm, p.seconds) for p in given_pulls]
        assert not Counter(p.reward for p in found) - seen, "each at most as often as it was seen"
        assert all((p.loss_before, p.loss_after) == (2 * p.reward, 3 * p.reward) for p in found), "outcomes stay whole"
        assert found == again(given_pulls)


def test_a_shuffle_goes_on_from_its_state_and_leaves_failures_alone():
    shuffle = Shuffle(3)
    shuffle(pulls([0.1, 0.2, 0.3]))
    again = Shuffle(0, shuffle.past)
    again.rng.bit_generator.state = shuffle.rng.bit_generator.state
    failed = Pull(9, "arm", 0.0, float("nan"), float("nan"))
    assert str(shuffle([*pulls([0.5, 0.6]), failed])) == str(again([*pulls([0.5, 0.6]), failed]))
    assert shuffle([failed])[0] is failed
