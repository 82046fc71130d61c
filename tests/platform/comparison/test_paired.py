"""Agents against their controls and against fixed choices, seed by seed."""

import pytest
from courses import course
from hypothesis import given
from hypothesis import strategies as st

from slimfed.platform.comparison.as_json import comparison_as_json
from slimfed.platform.comparison.report import Target, compare

RISING = [0.5, 0.7, 0.9]
TARGET = Target(0.9, "as given", 0.0)


def agent(seed, scale=1.0, qualities=RISING, **bandit):
    name = f"{bandit} {seed} {scale}"
    return course(qualities, name, seed, scale, method={"name": "slimfed"}, bandit=bandit)


def fixed(rank, seed, scale=1.0, qualities=RISING, **other):
    sections = {"method": {"name": "slimfed"}, "bandit": {"name": "fixed", "ranks": [rank], "local_steps": []}}
    return course(qualities, f"fixed {rank} {seed} {scale}", seed, scale, **sections, **other)


def test_a_control_is_paired_with_the_same_agent_by_seed():
    runs = [agent(1, 2.0), agent(2, 3.0), agent(1, 4.0, control="shuffled"), agent(2, 3.0, control="shuffled")]
    runs += [agent(3, 1.0, control="shuffled"), agent(1, 2.0, control="still")]
    shuffled, still = compare(runs, target=TARGET).controls
    assert dict(shuffled.ratios) == {1: pytest.approx(2.0), 2: pytest.approx(1.0)}
    assert (shuffled.median, shuffled.missed) == (pytest.approx(1.5), ())
    assert "shuffled" in shuffled.group
    assert dict(still.ratios) == {1: pytest.approx(1.0)}


def test_another_agent_is_no_twin_of_a_control():
    runs = [agent(1, name="s-ucb"), agent(1, control="shuffled")]
    assert compare(runs, target=TARGET).controls == ()


def test_regret_is_against_the_best_fixed_choice_of_each_seed():
    runs = [agent(1, 2.0), agent(2, 2.0), fixed(4, 1, 4.0), fixed(4, 2, 1.0), fixed(8, 1, 1.0), fixed(8, 2, 8.0)]
    (entry,) = compare(runs, target=TARGET).regret
    assert dict(entry.ratios) == {1: pytest.approx(2.0), 2: pytest.approx(2.0)}
    assert "8" in entry.others[1]
    assert "4" in entry.others[2]


def test_a_fixed_choice_of_another_world_is_left_out():
    other = fixed(4, 1, 0.1, disturbance={"stragglers": 0.5})
    assert compare([agent(1), other], target=TARGET).regret == ()
    (entry,) = compare([agent(1), other, fixed(2, 1, 0.5)], target=TARGET).regret
    assert dict(entry.ratios) == {1: pytest.approx(2.0)}


def test_seeds_that_missed_the_target_are_said_and_not_counted():
    short = [0.5, 0.6, 0.7]
    runs = [agent(1), agent(2, qualities=short), agent(3), fixed(4, 1), fixed(4, 2), fixed(4, 3, qualities=short)]
    (entry,) = compare(runs, target=TARGET).regret
    assert set(entry.ratios) == {1}
    assert entry.missed == (2, 3)


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=5, unique=True))
def test_a_grid_never_makes_a_regret_smaller(scales):
    def worst(count):
        grid = [fixed(2 + place, 1, scale) for place, scale in enumerate(scales[:count])]
        (entry,) = compare([agent(1), *grid], target=TARGET).regret
        return entry.ratios[1]

    assert worst(len(scales)) >= worst(1) * (1 - 1e-9)


def test_json_has_every_ratio():
    found = comparison_as_json(compare([agent(1, 2.0), agent(1, 3.0, control="still"), fixed(4, 1)], target=TARGET))
    assert found["controls"][0]["ratios"] == {"1": pytest.approx(1.5)}
    assert {tuple(entry["ratios"]) for entry in found["regret"]} == {("1",)}
