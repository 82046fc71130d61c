"""Agents: boxes partition the configurations, pulls are inherited exactly, restored agents go on to the bit."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from slimfed.clients.errors import InputError
from slimfed.strategies.bandits import BANDITS, Arm, Bandit, BanditSpec, make_bandit, restore_bandit, state_codec
from slimfed.strategies.bandits.s_ucb import SUcb

OF_DEVICES = sorted(name for name, kind in BANDITS.items() if issubclass(kind, Bandit))
steps = st.floats(0.0, 1.0, exclude_max=True)
specs = st.builds(
    BanditSpec,
    name=st.sampled_from(OF_DEVICES),
    pruning_step=st.tuples(steps, steps).map(lambda pair: tuple(sorted(pair))),
    ranks=st.sets(st.integers(1, 64), min_size=1, max_size=6).map(lambda ranks: tuple(sorted(ranks))),
    local_steps=st.sets(st.integers(1, 64), max_size=3).map(lambda counts: tuple(sorted(counts))),
    discount=st.floats(0.5, 1.0),
    exploration=st.floats(0.0, 3.0),
    resolution=st.sampled_from([0.01, 0.05, 0.5]),
)


@st.composite
def histories(draw):
    """Rounds of (allowed range, reward or None for a missing report); some ranges are a point, or beyond the boxes."""
    ranges = st.one_of(
        st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda pair: tuple(sorted(pair))),
        st.floats(0, 1).map(lambda step: (step, step)),
        st.sampled_from([(0.0, 0.4), (0.0, 0.0), (0.0, 1.0)]),
    )
    rewards = st.one_of(st.none(), st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0]))
    return draw(st.lists(st.tuples(ranges, rewards), max_size=25))


def play(agent, history, first=1):
    """The arms an agent gives along a history."""
    arms = []
    for round, ((low, high), reward) in enumerate(history, first):
        arm = agent.suggest(low, high)
        arms.append(arm)
        if reward is not None:
            agent.observe(round, arm, reward)
    return arms


@given(specs, histories(), st.integers(0, 2**31 - 1))
def test_arms_stay_within_what_is_allowed(spec, history, seed):
    arms = play(make_bandit(spec, seed), history)
    for arm, ((low, high), _) in zip(arms, history, strict=True):
        assert low <= arm.pruning_step <= high
        assert arm.rank in spec.ranks
        assert arm.local_steps in (spec.local_steps or (None,))
        assert type(arm.rank) is int
        assert type(arm.pruning_step) is float


@given(specs, histories(), histories(), st.integers(0, 2**31 - 1))
def test_restored_agent_continues_to_the_bit(spec, before, after, seed):
    agent = make_bandit(spec, seed)
    play(agent, before)
    restored = restore_bandit(json.loads(json.dumps(agent.state())))
    assert type(restored) is type(agent)
    first = len(before) + 1
    assert play(restored, after, first) == play(agent, after, first)
    assert json.dumps(restored.state()) == json.dumps(agent.state())


@given(specs, histories(), st.data())
def test_leaves_partition_the_box(spec, history, data):
    agent = SUcb(spec, 3)
    play(agent, history)
    low, high = spec.pruning_step
    boxes = [leaf.box for leaf in agent.leaves()]
    edges = [edge for box in boxes for edge in (box.low, box.high)]
    step = data.draw(st.one_of(st.floats(low, high), st.sampled_from(edges)))
    levels = len(spec.ranks) * max(1, len(spec.local_steps))
    for level in range(levels):
        assert sum(box.contains(step, level) for box in boxes) == 1
    if high > low:
        area = sum((box.high - box.low) * (box.end - box.first) for box in boxes)
        assert math.isclose(area, (high - low) * levels, rel_tol=1e-9)


@given(specs, histories())
def test_children_inherit_exactly_the_parents_pulls(spec, history):
    agent = SUcb(spec, 5)
    play(agent, history)
    waiting = [agent.root]
    while waiting:
        node = waiting.pop()
        assert all(node.box.contains(pull.step, pull.level) for pull in node.pulls)
        if node.children:
            inherited = [pull for child in node.children for pull in child.pulls]
            assert sorted(inherited, key=repr) == sorted(node.pulls, key=repr)
        waiting.extend(node.children)
    assert len(agent.root.pulls) == sum(reward is not None for _, reward in history)


@given(histories())
def test_boxes_are_never_cut_below_one_rank_or_the_resolution(history):
    agent = SUcb(BanditSpec(), 1)
    play(agent, history)
    waiting = [agent.root]
    while waiting:
        node = waiting.pop()
        assert node.box.end > node.box.first
        for child in node.children:
            if (child.box.first, child.box.end) == (node.box.first, node.box.end):
                assert node.box.high - node.box.low > 0.05
        waiting.extend(node.children)


def test_an_unobserved_round_teaches_nothing():
    quiet, other = SUcb(BanditSpec(), 9), SUcb(BanditSpec(), 9)
    for agent in (quiet, other):
        agent.observe(1, Arm(0.1, 4), 0.5)
    quiet.suggest(0.0, 0.4)
    assert quiet.state()["pulls"] == other.state()["pulls"]


def test_old_rewards_fade_by_rounds_not_by_pulls():
    """Two pulls of one box with unlike rewards: after a long gap the newer one is nearly all of the mean."""
    agent = SUcb(BanditSpec(discount=0.5, ranks=(4,), pruning_step=(0.1, 0.1)), 0)
    agent.observe(1, Arm(0.1, 4), 1.0)
    agent.observe(11, Arm(0.1, 4), 0.0)
    count, gain = agent._sums(agent.root.pulls, 12)
    assert count == pytest.approx(0.5 + 0.5**11)
    assert gain == pytest.approx(0.5**11)


def reward_of(arm: Arm, peak: tuple[float, float], noise: float) -> float:
    """A smooth hill over step and rank."""
    level = math.log2(arm.rank) - 1
    hill = math.exp(-(((arm.pruning_step - peak[0]) / 0.15) ** 2) - ((level - peak[1]) / 1.5) ** 2)
    return min(1.0, max(0.0, 0.1 + 0.5 * hill + noise))


def mean_reward(name: str, rounds: int) -> float:
    """Mean reward of 40 agents of one kind, each on a hill of its own."""
    total = 0.0
    for seed in range(40):
        world = np.random.default_rng(1000 + seed)
        peak = world.uniform(0, 0.4), world.uniform(0, 3)
        agent = make_bandit(BanditSpec(name=name), seed)
        for round in range(1, rounds + 1):
            arm = agent.suggest(0.0, 0.4)
            agent.observe(round, arm, reward_of(arm, peak, 0.04 * world.standard_normal()))
            total += reward_of(arm, peak, 0.0)
    return total / (40 * rounds)


def test_twenty_rounds_are_enough_to_beat_random_clearly():
    chance, learnt = mean_reward("random", 20), mean_reward("s-ucb", 20)
    best = 0.6
    assert (learnt - chance) / (best - chance) > 0.25
    assert mean_reward("s-ucb", 60) > learnt


def test_fixed_arm_defaults_and_bounds():
    agent = make_bandit(BanditSpec(name="fixed"), 0)
    assert agent.suggest(0.0, 0.4) == Arm(0.2, 16)
    assert agent.suggest(0.0, 0.1) == Arm(0.1, 16)
    assert agent.suggest(0.3, 0.5) == Arm(0.3, 16)
    given_arm = make_bandit(BanditSpec(name="fixed", fixed_step=0.05, fixed_rank=4), 0)
    assert given_arm.suggest(0.0, 0.4) == Arm(0.05, 4)


def test_agents_with_unlike_seeds_differ():
    arms = {make_bandit(BanditSpec(), seed).suggest(0.0, 0.4) for seed in range(20)}
    assert len(arms) == 20


@pytest.mark.parametrize("name", OF_DEVICES)
@pytest.mark.parametrize("reward", [-0.1, 1.1, math.nan, math.inf])
def test_rewards_outside_the_unit_interval_are_refused(name, reward):
    agent = make_bandit(BanditSpec(name=name), 0)
    with pytest.raises(ValueError, match="reward"):
        agent.observe(1, agent.suggest(0.0, 0.4), reward)


def test_s_ucb_refuses_unknown_ranks_and_rounds_that_go_back():
    agent = SUcb(BanditSpec(), 0)
    agent.observe(2, Arm(0.1, 4), 0.5)
    with pytest.raises(ValueError, match="ascending"):
        agent.observe(1, Arm(0.1, 4), 0.5)
    with pytest.raises(ValueError, match="rank 5"):
        agent.observe(3, Arm(0.1, 5), 0.5)


@pytest.mark.parametrize("bounds", [(0.3, 0.2), (-0.1, 0.2), (0.2, 1.1), (math.nan, 0.3)])
def test_an_impossible_range_is_refused(bounds):
    for name in OF_DEVICES:
        with pytest.raises(ValueError, match="within"):
            make_bandit(BanditSpec(name=name), 0).suggest(*bounds)


def test_unknown_agent_is_bad_input():
    with pytest.raises(InputError, match=r"bandit\.name.*'magic'.*s-ucb"):
        make_bandit(BanditSpec(name="magic"), 0)


@pytest.mark.parametrize(
    "fields",
    [
        {"ranks": (4, 2)},
        {"ranks": (2, 2)},
        {"ranks": (0, 2)},
        {"ranks": ()},
        {"pruning_step": (0.4, 0.1)},
        {"pruning_step": (0.0, 1.0)},
        {"pruning_step": (-0.1, 0.4)},
        {"discount": 0.0},
        {"resolution": 0.0},
        {"fixed_rank": 3},
        {"local_steps": (4, 2)},
        {"local_steps": (0, 2)},
        {"fixed_local_steps": 10},
        {"control": "odd"},
        {"reward": {"loss": 0.9}},
        {"unknown": 1},
    ],
)
def test_bad_specs_are_refused(fields):
    with pytest.raises(ValidationError):
        BanditSpec(**fields)


def test_a_spec_from_a_job_file_keeps_defaults():
    spec = BanditSpec.model_validate({"ranks": [2, 4], "pruning_step": [0.1, 0.3], "reward": {"time_penalty": 2.0}})
    assert spec.ranks == (2, 4)
    assert spec.reward.time_penalty == 2.0
    assert spec.reward.loss == 0.5


@given(specs, st.lists(histories(), min_size=1, max_size=4), histories())
def test_a_fleet_of_agents_goes_through_tensors_and_on_to_the_bit(spec, pasts, future):
    agents = [make_bandit(spec, index) for index in range(len(pasts))]
    for agent, past in zip(agents, pasts, strict=True):
        play(agent, past)
    tensors, rest = state_codec.pack(agents)
    states = list(state_codec.unpack(tensors, json.loads(json.dumps(rest))))
    assert [play(restore_bandit(state), future, 100) for state in states] == [
        play(restore_bandit(json.loads(json.dumps(agent.state()))), future, 100) for agent in agents
    ]
    again, same = state_codec.pack([restore_bandit(state) for state in states])
    assert same == rest
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(again[name], tensor)


def test_a_damaged_fleet_of_agents_is_refused():
    tensors, rest = state_codec.pack([make_bandit(BanditSpec(), 1)])
    with pytest.raises(ValueError, match="3 pulls of 1 agents are not those that were kept"):
        next(state_codec.unpack(tensors | {"pulls": np.zeros((3, 5))}, rest))
