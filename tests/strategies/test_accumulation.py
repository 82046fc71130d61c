"""Updates that are added up as they come give, to the bit, what all of them at once would, in any order."""

import numpy as np
import pytest
from aggregating import BLUEPRINT, global_adapter, make_update, tensors
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfed.strategies.accumulation import GradedAccumulators, RoundAccumulator
from slimfed.strategies.aggregation import AGGREGATIONS

KEEPS = ((1, 0, 1, 0, 0), (1, 1, 0, 1, 1), (1, 1, 1, 1, 1))


def fleet(name: str, devices: int):
    """Devices of every shape that the aggregation takes, each with scores of its own."""
    equal = AGGREGATIONS[name].needs_equal_structures
    for device in range(devices):
        keep, rank = (KEEPS[2], 2) if equal else (KEEPS[device % 3], 1 + device % 4)
        update = make_update(device, keep, rank, 1 + 7 * device, scale=1.0 + device / 10)
        update.scores[:] = np.random.default_rng(device).random(BLUEPRINT.units)
        yield update


def new(name: str) -> RoundAccumulator:
    return RoundAccumulator(AGGREGATIONS[name].start(global_adapter()), BLUEPRINT.units, range(3))


@pytest.mark.parametrize("name", AGGREGATIONS)
@settings(max_examples=5, deadline=None)
@given(st.randoms(use_true_random=False))
def test_neither_order_nor_grade_changes_a_bit(name: str, random) -> None:
    updates = list(fleet(name, 24))
    too_large = make_update(99, KEEPS[2], 2, 5, scale=1e3)
    graded, shuffled = GradedAccumulators(lambda: new(name)), [*updates, too_large]
    random.shuffle(shuffled)
    for update in shuffled:
        graded.add(update, (9, 0) if update is too_large else (random.randrange(3), random.randrange(2)))
    accumulated = graded.merged((2, 1))
    expected = tensors(AGGREGATIONS[name](global_adapter(), updates))
    for key, value in tensors(accumulated.aggregate()).items():
        np.testing.assert_array_equal(value, expected[key])
    total, count = accumulated.scores()
    plain = RoundAccumulator(AGGREGATIONS["median"].start(global_adapter()), BLUEPRINT.units, ())
    for update in updates:
        plain.add(update)
    assert count == 24
    np.testing.assert_array_equal(total, plain.scores()[0])
    np.testing.assert_allclose(total, sum(update.scores.astype(np.float64) for update in updates), rtol=1e-12)
    assert [update.device for update in accumulated.kept_updates()] == [0, 1, 2]
