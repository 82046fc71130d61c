"""A minority can neither hide the size of its updates nor accuse others; grades tell sizes apart to a factor."""

import math
from dataclasses import replace

import numpy as np
import pytest
from aggregating import global_adapter, make_update
from hypothesis import given
from hypothesis import strategies as st

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.strategies.checks.outliers import Grades, Sizes, distance, find_outliers, largest_distance
from slimfed.strategies.coordinates.global_vector import GlobalVector


@given(st.integers(6, 40), st.data())
def test_a_minority_cannot_hide_its_norms_or_accuse_others(devices, data):
    honest_count = devices // 2 + 1
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    usual = np.exp(rng.uniform(-0.3, 0.3, honest_count))
    attackers = data.draw(
        st.lists(st.floats(1e3, 1e30), min_size=devices - honest_count, max_size=devices - honest_count)
    )
    bound = largest_distance([*usual.tolist(), *attackers])
    assert bound >= usual.max()
    if len(attackers) <= devices // 4:
        assert bound < 1e3


def test_a_fleet_as_diverse_as_this_may_go_beyond_ten_times_the_median():
    distances = [10.0**exponent for exponent in (-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2)]
    assert largest_distance(distances) > 100.0


def test_a_fleet_that_stands_still_is_not_judged():
    assert largest_distance([0.0] * 7 + [1.0]) == math.inf


def test_distance_is_the_root_mean_square_of_what_moved():
    before, update = global_adapter(), make_update(0, [1, 0, 1, 0, 1], 2, 5)
    structure = update.report.structure
    sent = narrow(before, structure.blueprint.dense(), structure, 2)
    space = GlobalVector(before, structure.blueprint)
    assert distance(replace(update, adapter=sent), space) == 0.0
    factors = {m: Factors(f.a + np.float32(0.25), f.b - np.float32(0.25)) for m, f in sent.factors.items()}
    head = {name: tensor + np.float32(0.25) for name, tensor in sent.head.items()}
    shifted = replace(update, adapter=Adapter(factors, head))
    assert distance(shifted, space) == pytest.approx(0.25, rel=1e-5)


@given(st.floats(1e3, 1e9), st.booleans())
def test_the_one_that_is_far_or_loud_is_the_one_that_is_found(factor: float, far: bool) -> None:
    grades = Grades(1e-3, 1e-3)
    sizes = {device: Sizes(1.0 + device / 100, 1.0 + device / 100) for device in range(8)}
    sizes[3] = Sizes(factor, 1.0) if far else Sizes(1.0, factor)
    found, highest = find_outliers(sizes, grades)
    assert {device: finding.kind for device, finding in found.items()} == {3: "norm" if far else "scores"}
    accepted = [grades.both(each) for device, each in sizes.items() if device != 3]
    assert all(grade <= bound for pair in accepted for grade, bound in zip(pair, highest, strict=True))


@given(st.floats(1e-6, 1e6), st.floats(1e-9, 1e30), st.floats(1e-9, 1e30))
def test_grades_rise_with_sizes_and_tell_them_apart_to_a_factor(reach: float, one: float, other: float) -> None:
    grades = Grades(reach, reach)
    for grade, factor in ((grades.moved, 2.0), (grades.scored, 8.0)):
        low, high = sorted((one, other))
        assert grade(low) <= grade(high) <= grade(float("inf"))
        assert grade(reach) == 0
        if high > 1.001 * factor * max(low, reach) and grade(low) < grade(float("inf")):
            assert grade(low) < grade(high)
