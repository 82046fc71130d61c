"""Agreement: what a device moves along with the others; what it moves alone counts nothing."""

from dataclasses import replace

import numpy as np
import pytest
from aggregating import BLUEPRINT, RANK, fleets, global_adapter, make_update
from hypothesis import given

from slimfed.strategies.checks.agreement import UpdateSamples
from slimfed.strategies.coordinates.global_vector import GlobalVector

WHOLE = [1, 1, 1, 1, 1]


def moved(device, move, examples=5):
    """The update of a dense device that moves the global adapter by the vector ``move``."""
    update, before = make_update(device, WHOLE, RANK, examples), global_adapter()
    return replace(update, adapter=before.with_vector((before.vector + move).astype(np.float32)))


def agreements(updates, seed=0):
    samples = UpdateSamples(GlobalVector(global_adapter(), BLUEPRINT), seed)
    for update in updates:
        samples.add(update)
    return samples.agreements([update.device for update in updates])


def test_devices_that_move_alike_agree_in_full_and_twice_the_way_is_worth_twice():
    way = np.random.default_rng(0).standard_normal(len(global_adapter().vector))
    found = agreements([moved(device, way) for device in range(4)])
    assert list(found.values()) == pytest.approx([1.0] * 4, rel=1e-3)
    found = agreements([moved(0, 2 * way), *(moved(device, way) for device in range(1, 40))])
    assert found[0] / found[1] == pytest.approx(2.0, rel=0.06)


def test_a_way_of_its_own_is_worth_nothing_and_the_opposite_less():
    draw, size = np.random.default_rng(1), len(global_adapter().vector)
    way = draw.standard_normal(size)
    own = draw.standard_normal(size)
    own -= way * (own @ way) / (way @ way)
    others = [moved(device, way) for device in range(2, 30)]
    found = agreements([moved(0, own), moved(1, -way), *others])
    assert found[0] == pytest.approx(0.0, abs=0.02)
    assert found[1] < -0.8
    assert found[5] > 0.8


@given(fleets)
def test_it_does_not_depend_on_the_order_of_updates(updates):
    one, other = agreements(updates), agreements(updates[::-1])
    assert one == other or np.isnan(list(one.values())).all()
    assert set(one) == {update.device for update in updates}
    if len(updates) == 1:
        assert np.isnan(one[0]), "one device has nobody to agree with"


def test_refused_devices_are_left_out():
    way = np.ones(len(global_adapter().vector))
    samples = UpdateSamples(GlobalVector(global_adapter(), BLUEPRINT), 0)
    for device in range(3):
        samples.add(moved(device, way if device else 1e6 * way))
    assert samples.agreements([1, 2]) == pytest.approx({1: 1.0, 2: 1.0}, rel=1e-3)
    assert samples.agreements([]) == {}
