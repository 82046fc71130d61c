"""Rewards: within [0, 1], relative to the round's participants, safe against what cannot be computed."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError

from slimfed.strategies.bandits.spec import RewardSpec
from slimfed.strategies.reward import RewardTerms, rewards


def reward(spec=None, **changed):
    """Rewards of two devices that differ in nothing but what is ``changed``."""
    columns = {
        "loss_before": [2.0, 2.0],
        "loss_after": [1.0, 1.0],
        "sparsity_before": [0.2, 0.2],
        "sparsity_after": [0.35, 0.35],
        "importance": [4.0, 4.0],
        "seconds": [10.0, 10.0],
    }
    return rewards(spec or RewardSpec(), RewardTerms(**(columns | changed)), 0.5)


def test_the_formula_by_hand():
    # 0.5 * (2 - 1) / 2 + 0.25 * 0.15 / 0.3 + 0.25 * I / max I, over 1 + |T - 15| / 15
    values = reward(importance=[4.0, 2.0], seconds=[10.0, 20.0])
    assert values == pytest.approx([(0.25 + 0.125 + 0.25) / (1 + 1 / 3), (0.25 + 0.125 + 0.125) / (1 + 1 / 3)])


def test_no_penalty_at_the_mean_and_the_same_for_early_and_late():
    values = reward(seconds=[5.0, 15.0])
    assert values[0] == values[1] < reward()[0]
    assert reward(RewardSpec(time_penalty=0.0), seconds=[5.0, 15.0]) == pytest.approx(reward())


def test_kappa_deepens_the_penalty():
    gentle, harsh = (reward(RewardSpec(time_penalty=k), seconds=[5.0, 15.0])[0] for k in (0.5, 2.0))
    assert harsh < gentle


anything = st.one_of(st.floats(-1e6, 1e6), st.sampled_from([math.nan, math.inf, -math.inf, 0.0]))


@given(st.data(), st.integers(1, 6))
def test_rewards_lie_in_the_unit_interval_whatever_was_reported(data, devices):
    names = ("loss_before", "loss_after", "importance")
    odd = {name: data.draw(arrays(np.float64, devices, elements=anything)) for name in names}
    shares = {
        name: data.draw(arrays(np.float64, devices, elements=st.floats(0, 0.99)))
        for name in ("sparsity_before", "sparsity_after")
    }
    seconds = data.draw(arrays(np.float64, devices, elements=st.floats(0, 1e9)))
    values = rewards(RewardSpec(), RewardTerms(seconds=seconds, **odd, **shares), 0.5)
    assert values.shape == (devices,)
    assert np.isfinite(values).all()
    assert ((values >= 0) & (values <= 1)).all()


@pytest.mark.parametrize(("before", "after"), [(0.0, 1.0), (math.nan, 1.0), (1.0, math.nan), (-1.0, -2.0), (1.0, 3.0)])
def test_a_loss_that_cannot_be_compared_or_grew_earns_nothing(before, after):
    spec = RewardSpec(loss=1.0, pruning=0.0, importance=0.0)
    assert reward(spec, loss_before=[before, 2.0], loss_after=[after, 1.0]).tolist() == [0.0, 0.5]


def test_pruning_counts_against_what_was_missing():
    spec = RewardSpec(loss=0.0, pruning=1.0, importance=0.0)
    assert reward(spec, sparsity_before=[0.0, 0.4], sparsity_after=[0.1, 0.5]) == pytest.approx([0.2, 1.0])
    assert reward(spec, sparsity_before=[0.5, 0.5], sparsity_after=[0.5, 0.5]).tolist() == [0.0, 0.0]


def test_a_broken_importance_does_not_touch_the_others():
    spec = RewardSpec(loss=0.0, pruning=0.0, importance=1.0)
    assert reward(spec, importance=[math.inf, 2.0]).tolist() == [0.0, 1.0]
    assert reward(spec, importance=[0.0, 0.0]).tolist() == [0.0, 0.0]


def test_a_false_importance_does_not_take_away_the_others_part():
    """At least a hundredth of it is left, however large the lie; an honest spread changes nothing."""
    spec, same = RewardSpec(loss=0.0, pruning=0.0, importance=1.0), np.ones(8)
    terms = {"loss_before": same, "loss_after": same, "sparsity_before": 0 * same, "sparsity_after": 0 * same}
    for lie in (1e3, 1e12):
        values = rewards(spec, RewardTerms(**terms, importance=np.array([*same[:7], lie]), seconds=same), 0.5)
        assert values[-1] == 1.0
        assert values[:7] == pytest.approx(0.01)
    honest = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 90.0])
    values = rewards(spec, RewardTerms(**terms, importance=honest, seconds=same), 0.5)
    assert values.tolist() == (honest / 90.0).tolist()


@pytest.mark.parametrize("seconds", [[1.0, math.nan], [1.0, -1.0], [1.0], [1.0, 2.0, 3.0]])
def test_impossible_times_and_lengths_are_refused(seconds):
    with pytest.raises(ValueError, match=r"times|entry"):
        reward(seconds=seconds)


def test_a_round_without_participants_has_no_rewards():
    empty = dict.fromkeys(
        ("loss_before", "loss_after", "sparsity_before", "sparsity_after", "importance", "seconds"), ()
    )
    assert rewards(RewardSpec(), RewardTerms(**empty), 0.5).shape == (0,)


def test_weights_must_sum_to_one():
    with pytest.raises(ValidationError, match="must be 1"):
        RewardSpec(loss=0.5, pruning=0.5, importance=0.5)
