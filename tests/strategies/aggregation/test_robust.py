"""Robust aggregation over unequal updates: what liars say does not count, and what honest devices say does."""

from dataclasses import replace

import numpy as np
import pytest
from aggregating import RANK, fleets, global_adapter, make_update, tensors
from hypothesis import given
from hypothesis import strategies as st

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.update import Update
from slimfed.strategies.aggregation import AGGREGATIONS
from slimfed.strategies.aggregation.multi_krum import choose
from slimfed.strategies.aggregation.trimmed_mean import TrimmedMean
from slimfed.strategies.coordinates.places import places

ROBUST = ("trimmed-mean", "median", "multi-krum")
FULL = [1, 1, 1, 1, 1]


def scattered(update: Update) -> dict[str, np.ndarray]:
    """An update in global coordinates; NaN where it owns nothing."""
    whole = {name: np.full(tensor.shape, np.nan) for name, tensor in tensors(global_adapter()).items()}
    for module, place in places(global_adapter(), update.report.structure, update.report.rank).items():
        for part, tensor in update.adapter.factors[module].parts().items():
            whole[f"{module}.{part}"][place.of(part)] = tensor
    return whole | {name: tensor.astype(np.float64) for name, tensor in update.adapter.head.items()}


def changed(update: Update, change) -> Update:
    factors = {m: Factors(change(f.a), change(f.b)) for m, f in update.adapter.factors.items()}
    return replace(update, adapter=Adapter(factors, {n: change(t) for n, t in update.adapter.head.items()}))


def crowd(count: int) -> list[Update]:
    """Honest devices of unequal structure and rank that moved alike from the global adapter."""
    keeps = [FULL, [1, 0, 1, 1, 1], [1, 1, 0, 1, 1], [0, 1, 1, 1, 0]]
    moved = []
    for device in range(count):
        update = make_update(device, keeps[device % 4], 2 + device % (RANK - 1), 10)
        noise = np.random.default_rng(device)
        moved.append(changed(update, lambda t, n=noise: (1 + 0.01 * n.standard_normal(t.shape)).astype(np.float32)))
    return moved


LIES = {
    "flipped sign": lambda t: -t,
    "huge": lambda t: (1e6 * t).astype(np.float32),
    "zero": lambda t: np.zeros_like(t),
}


@pytest.mark.parametrize("name", ROBUST)
@pytest.mark.parametrize("lie", LIES)
def test_a_fifth_of_liars_is_without_effect(name: str, lie: str) -> None:
    """Two of ten, of whom every coordinate has at most one in five; the coverage mean is moved by them."""
    updates = crowd(10)
    for liar in (0, 5):
        updates[liar] = changed(updates[liar], LIES[lie]).with_report(examples=2**28)
    robust, plain = (tensors(AGGREGATIONS[each](global_adapter(), updates)) for each in (name, "coverage"))
    owned = {n: ~np.isnan([scattered(u)[n] for u in updates]).all(axis=0) for n in robust}
    # The first ranks are everybody's; in the last ones a coordinate may have few owners.
    shared = {n: m & (np.sum([~np.isnan(scattered(u)[n]) for u in updates], axis=0) >= 6) for n, m in owned.items()}
    assert max(np.abs(robust[n][m] - 1).max() for n, m in shared.items() if m.any()) < 0.1
    assert max(np.abs(plain[n][m] - 1).max() for n, m in shared.items() if m.any()) > 0.1


@pytest.mark.parametrize("name", ROBUST)
@given(fleets, st.randoms(use_true_random=False))
def test_order_does_not_matter_and_unowned_coordinates_stay(name, updates, random) -> None:
    before = global_adapter()
    shuffled = list(updates)
    random.shuffle(shuffled)
    one, other = (tensors(AGGREGATIONS[name](before, each)) for each in (updates, shuffled))
    for key, previous in tensors(before).items():
        values = np.stack([scattered(update)[key] for update in updates])
        owned = ~np.isnan(values)
        assert np.array_equal(one[key], other[key])
        assert one[key].dtype == np.float32
        if name != "multi-krum":  # it may drop the only owner of a coordinate
            assert np.array_equal(one[key][~owned.any(0)], previous[~owned.any(0)])
            low, high = np.where(owned, values, np.inf).min(0), np.where(owned, values, -np.inf).max(0)
            slack = 1e-6 * np.abs(one[key]) + 1e-12
            assert ((one[key] >= low - slack) & (one[key] <= high + slack))[owned.any(0)].all()


def test_trimmed_mean_by_hand() -> None:
    """Five owners: the largest and the smallest do not count; of two nobody is left out."""
    values = np.array([[1.0, 5.0], [2.0, np.nan], [3.0, np.nan], [4.0, 7.0], [900.0, np.nan]])
    np.testing.assert_array_equal(TrimmedMean(0.2).centre(values), [3.0, 6.0])


def test_krum_leaves_out_exactly_the_liars() -> None:
    updates = crowd(10)
    updates[3], updates[8] = (changed(updates[each], LIES["flipped sign"]) for each in (3, 8))
    assert choose(global_adapter(), updates, 0.2) == [0, 1, 2, 4, 5, 6, 7, 9]


def test_a_rank_one_factor_is_not_broadcast() -> None:
    update = make_update(0, FULL, RANK, 5)
    factors = {m: Factors(f.a[:1], f.b[:, :1]) for m, f in update.adapter.factors.items()}
    thin = replace(update, adapter=Adapter(factors, update.adapter.head))
    for name in ("trimmed-mean", "median"):
        with pytest.raises(ValueError, match="does not fit"):
            AGGREGATIONS[name](global_adapter(), [thin, update])
