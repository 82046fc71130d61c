"""The fleet's agent learns what local steps are worth, fills the round, and goes on from its state to the bit."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfed.strategies.bandits import BanditSpec, Offer, Pull, make_agent, unpack_agent
from slimfed.strategies.bandits.control import Shuffle

STEPS = (5, 10, 20, 40)


def spec(**fields):
    return BanditSpec(name="pooled", **({"ranks": (2, 4, 8), "local_steps": STEPS} | fields))


def fleet(devices, seed=0):
    """Offers of unequal devices: seconds are linear in steps and rank."""
    draw = np.random.default_rng(seed)
    step, byte = draw.choice([0.004, 0.01, 0.03], devices), draw.lognormal(0, 0.3, devices) * 0.05

    def offer(n, known=True):
        def times(arms):
            return np.array([step[n] * (arm.local_steps or 10) + byte[n] * arm.rank + 0.1 for arm in arms])

        return Offer(n, 0.0, 0.1, times if known else None)

    return offer


def told(offers, arms, exponent, draw, noise=0.3):
    """Pulls whose agreement grows with local steps by ``exponent`` a doubling."""
    worth = [float((arm.local_steps or 1) ** (exponent / np.log(2))) for arm in arms]
    deviations = draw.lognormal(0, noise, len(arms)).tolist()
    return [
        Pull(offer.device, arm, 0.5, 1.0, 0.9, w * d, 1.0)
        for offer, arm, w, d in zip(offers, arms, worth, deviations, strict=True)
    ]


def play(agent, offer, devices, rounds, exponent, change=lambda pulls: pulls):
    """The arms of every round."""
    draw, given_arms = np.random.default_rng(5), []
    for number in range(1, rounds + 1):
        offers = [offer(n, known=number > 1) for n in range(devices)]
        arms = agent.suggest(offers)
        agent.observe(number, change(told(offers, arms, exponent, draw)))
        given_arms.append(arms)
    return given_arms


@pytest.mark.parametrize("exponent", [0.0, 0.35, 0.69])
def test_it_learns_what_local_steps_are_worth(exponent):
    agent = make_agent(spec(), 1, 60)
    play(agent, fleet(60), 60, 8, exponent)
    assert agent.exponent == pytest.approx(exponent, abs=0.07)


def test_what_it_learns_changes_what_it_gives():
    long, short = (play(make_agent(spec(), 1, 60), fleet(60), 60, 8, e)[-1] for e in (0.69, 0.0))
    assert np.mean([arm.local_steps for arm in long]) > 2 * np.mean([arm.local_steps for arm in short])


def test_shuffled_outcomes_teach_nothing_about_steps():
    agent = make_agent(spec(), 1, 60)
    play(agent, fleet(60), 60, 8, 0.69, Shuffle(3))
    assert abs(agent.exponent) < 0.2


def test_a_still_agent_keeps_to_what_was_assumed():
    agent = make_agent(spec(control="still"), 1, 20)
    first = [play(make_agent(spec(control="still"), 1, 20), fleet(20), 20, 3, e)[1] for e in (0.0, 0.69)]
    assert first[0] == first[1]
    assert agent.exponent == pytest.approx(0.35)


@settings(max_examples=40)
@given(st.integers(1, 30), st.integers(0, 10**6), st.floats(0.0, 1.0))
def test_no_device_prolongs_the_round_where_a_quicker_arm_would_do(devices, seed, exponent):
    agent, offer = make_agent(spec(), seed, devices), fleet(devices, seed)
    for arms in play(agent, offer, devices, 3, exponent)[1:]:
        assert len({arm.rank for arm in arms}) == 1, "one rank for the fleet"
        assert all(arm.pruning_step == 0.1 for arm in arms)
        times = [float(offer(n).times([arm])[0]) for n, arm in enumerate(arms)]
        fastest = max(float(offer(n).times([type(arm)(0.1, arm.rank, 5)])[0]) for n, arm in enumerate(arms))
        slowest = int(np.argmax(times))
        assert times[slowest] >= fastest * (1 - 1e-9)
        for n, arm in enumerate(arms):  # what fits by the length of the round is taken
            fitting = [s for s in STEPS if float(offer(n).times([type(arm)(0.1, arm.rank, s)])[0]) <= max(times)]
            if exponent > 0.3 and devices > 10:
                assert arm.local_steps in fitting


def test_unknown_devices_begin_small_and_without_choice_the_job_decides():
    offers = [fleet(4)(n, known=False) for n in range(4)]
    assert {(arm.rank, arm.local_steps) for arm in make_agent(spec(), 1, 4).suggest(offers)} == {(2, 10)}
    assert {arm.local_steps for arm in make_agent(spec(local_steps=()), 1, 4).suggest(offers)} == {None}
    agent = make_agent(spec(local_steps=()), 1, 6)
    arms = play(agent, fleet(6), 6, 3, 0.5)
    assert {arm.local_steps for arm in arms[-1]} == {None}
    assert agent.exponent == pytest.approx(0.35), "equal steps tell nothing"


def test_a_rank_that_ran_out_of_memory_is_not_offered_again():
    agent, offer = make_agent(spec(), 1, 5), fleet(5)
    arms = agent.suggest([offer(n) for n in range(5)])
    failed = Pull(2, type(arms[2])(0.1, 4, 5), 0.0, np.nan, np.nan)
    agent.observe(1, [failed, *told([offer(n) for n in (0, 1, 3, 4)], arms[:4], 0.5, np.random.default_rng(0))])
    for number in range(2, 8):
        arms = agent.suggest([offer(n) for n in range(5)])
        assert arms[2].rank == 2
        agent.observe(number, told([offer(n) for n in range(5)], arms, 0.5, np.random.default_rng(number)))


@given(st.integers(0, 10**6), st.integers(0, 4), st.floats(-0.2, 0.8))
@settings(max_examples=30)
def test_it_goes_on_from_its_state_to_the_bit(seed, rounds, exponent):
    agent, offer = make_agent(spec(), seed, 7), fleet(7, seed)
    play(agent, offer, 7, rounds, exponent)
    tensors, rest = agent.pack()
    again = unpack_agent(tensors, json.loads(json.dumps(rest)), 7)
    assert play(again, offer, 7, 3, exponent) == play(agent, offer, 7, 3, exponent)
    assert json.dumps(again.pack()[1]) == json.dumps(agent.pack()[1])


def test_noise_and_negative_agreements_do_no_harm():
    agent, offer = make_agent(spec(), 1, 9), fleet(9)
    draw = np.random.default_rng(0)
    for number in range(1, 20):
        offers = [offer(n) for n in range(9)]
        arms = agent.suggest(offers)
        values = draw.standard_normal(9) * draw.choice([1e-9, 1.0, 1e6])
        pulls = [Pull(n, arm, 0.0, 1.0, 1.0, float(values[n]), 1.0) for n, arm in enumerate(arms)]
        agent.observe(number, pulls)
        assert np.isfinite(agent.exponent)
