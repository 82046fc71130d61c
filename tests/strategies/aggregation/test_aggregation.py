"""Aggregation: means of owners in global coordinates, in any order, to the bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from aggregating import BLUEPRINT, RANK, SHAPES, fleets, global_adapter, keeps, make_update, tensors
from hypothesis import given
from hypothesis import strategies as st

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.errors import InputError
from slimfed.clients.update import Update
from slimfed.strategies.aggregation import AGGREGATIONS, initial_adapter
from slimfed.strategies.coordinates.exact_sum import ExactSum
from slimfed.strategies.coordinates.places import places


def scattered(update: Update) -> dict[str, np.ndarray]:
    """An update in global coordinates, entry by entry from the definition of a cut; NaN where it owns nothing."""
    whole = {name: np.full(tensor.shape, np.nan) for name, tensor in tensors(global_adapter()).items()}
    kept = {}
    for index, block in enumerate(BLUEPRINT.blocks):
        for cut in block.cuts:
            units = update.report.structure.kept(index)
            kept[cut.module, cut.side] = [
                start + unit * cut.width + offset
                for start in cut.starts
                for unit in units
                for offset in range(cut.width)
            ]
    for module, (rows, columns) in SHAPES.items():
        factors = update.adapter.factors[module]
        for rank in range(update.report.rank):
            for position, column in enumerate(kept.get((module, "in"), range(columns))):
                whole[f"{module}.a"][rank, column] = factors.a[rank, position]
            for position, row in enumerate(kept.get((module, "out"), range(rows))):
                whole[f"{module}.b"][row, rank] = factors.b[position, rank]
    return whole | {name: tensor.astype(np.float64) for name, tensor in update.adapter.head.items()}


@given(fleets)
def test_every_coordinate_is_the_weighted_mean_of_its_owners(updates):
    before = global_adapter()
    result = tensors(AGGREGATIONS["coverage"](before, updates))
    parts = [scattered(update) for update in updates]
    weights = np.array([update.report.examples for update in updates], dtype=np.float64)
    for name, previous in tensors(before).items():
        values = np.stack([part[name] for part in parts])
        owned = ~np.isnan(values)
        share = owned * weights.reshape(-1, *[1] * previous.ndim)
        covered = owned.any(axis=0)
        assert result[name].dtype == np.float32
        assert np.array_equal(result[name][~covered], previous[~covered])
        expected = (np.where(owned, values, 0) * share).sum(0)[covered] / share.sum(0)[covered]
        size = np.where(owned, np.abs(values), 0).max(axis=0)[covered]
        assert (np.abs(result[name][covered] - expected) <= 2e-7 * size + 1e-13).all()
        slack = 1e-7 * size + 1e-13
        assert (result[name][covered] >= np.where(owned, values, np.inf).min(axis=0)[covered] - slack).all()
        assert (result[name][covered] <= np.where(owned, values, -np.inf).max(axis=0)[covered] + slack).all()


@given(fleets, st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_change_a_bit(updates, random):
    before = global_adapter()
    shuffled = random.sample(updates, len(updates))
    one, other = (tensors(AGGREGATIONS["coverage"](before, order)) for order in (updates, shuffled))
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)


def test_float_sums_alone_would_depend_on_the_order():
    """The case that the exact sums are for: the same terms, two orders, unlike results in plain float64."""
    terms = np.array([1e6, 1e-9, -1e6, 3e-9], dtype=np.float32)
    assert sum(terms.astype(float)) != sum(np.sort(terms).astype(float))
    sums = []
    for order in (terms, np.sort(terms), terms[::-1]):
        total = ExactSum(1)
        for term in order:
            total.add(torch.tensor([term], dtype=torch.float32), 3)
        sums.append(float(total.value()[0]))
    assert sums[0] == sums[1] == sums[2] == pytest.approx(1.2e-8, rel=1e-5)


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=5))
def test_equal_updates_give_the_plain_weighted_mean_and_fedavg_agrees(examples):
    before = global_adapter()
    updates = [make_update(device, [1, 1, 1, 1, 1], RANK, n) for device, n in enumerate(examples)]
    result, plain = (tensors(AGGREGATIONS[name](before, updates)) for name in ("coverage", "fedavg"))
    for name in result:
        mean = np.average([tensors(u.adapter)[name].astype(float) for u in updates], axis=0, weights=examples)
        assert np.allclose(result[name], mean, rtol=1e-6, atol=1e-7)
        assert np.array_equal(result[name], plain[name])


@given(keeps, st.integers(1, RANK), st.integers(1, 5000))
def test_sending_back_what_was_sent_changes_nothing(keep, rank, examples):
    before = global_adapter(3)
    update = make_update(0, keep, rank, examples)
    factors = {
        module: Factors(before.factors[module].a[place.a], before.factors[module].b[place.b])
        for module, place in places(before, update.report.structure, rank).items()
    }
    echo = replace(update, adapter=Adapter(factors, before.head))
    result = tensors(AGGREGATIONS["coverage"](before, [echo]))
    assert all(np.array_equal(result[name], tensor) for name, tensor in tensors(before).items())


def test_untrained_ranks_keep_their_initial_rows():
    before = initial_adapter(SHAPES, 3, {"head.weight": np.zeros((2, 5))}, seed=1)
    update = make_update(0, [1, 1, 1, 1, 1], 1, 10)
    result = AGGREGATIONS["coverage"](before, [update])
    for module, factors in before.factors.items():
        assert np.array_equal(result.factors[module].a[1:], factors.a[1:])
        assert not result.factors[module].b[:, 1:].any()
        assert np.array_equal(result.factors[module].a[:1], update.adapter.factors[module].a)


def test_no_update_leaves_the_adapter_and_inputs_stay_untouched():
    before = global_adapter()
    copies = {name: tensor.copy() for name, tensor in tensors(before).items()}
    for aggregate in AGGREGATIONS.values():
        assert all(np.array_equal(t, copies[n]) for n, t in tensors(aggregate(before, [])).items())
    AGGREGATIONS["coverage"](before, [make_update(0, [1, 0, 1, 1, 0], 2, 5)])
    assert all(np.array_equal(t, copies[n]) for n, t in tensors(before).items())


def test_a_factor_of_rank_one_is_not_broadcast_over_all_ranks():
    update = make_update(0, [1, 1, 1, 1, 1], 4, 5)
    thin = {m: Factors(f.a[:1], f.b) for m, f in update.adapter.factors.items()}
    odd = replace(update, adapter=Adapter(thin, update.adapter.head))
    with pytest.raises(ValueError, match=r"shape \[1, 5\]"):
        AGGREGATIONS["coverage"](global_adapter(), [odd])


@pytest.mark.parametrize("weight", [0, -1, 2**29])
def test_weights_out_of_range_are_refused(weight):
    with pytest.raises(ValueError, match="whole weight"):
        AGGREGATIONS["coverage"].start(global_adapter()).add(make_update(0, [1, 1, 1, 1, 1], 2, 5), weight)


def test_a_given_weight_replaces_the_examples():
    updates = [make_update(0, [1] * 5, RANK, 1), make_update(1, [1] * 5, RANK, 1)]
    accumulation = AGGREGATIONS["coverage"].start(global_adapter())
    for update, weight in zip(updates, (3, 1), strict=True):
        accumulation.add(update, weight)
    one, other = (update.adapter.head["head.weight"] for update in updates)
    assert np.allclose(accumulation.result().head["head.weight"], 0.75 * one + 0.25 * other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("keep", "rank", "word"), [([1] * 5, 2, "ranks"), ([1, 0, 1, 1, 1], RANK, "structures")])
def test_fedavg_refuses_unequal_updates(keep, rank, word):
    updates = [make_update(0, [1] * 5, RANK, 1), make_update(1, keep, rank, 1)]
    with pytest.raises(InputError, match=rf"method\.aggregation: fedavg needs equal {word}"):
        AGGREGATIONS["fedavg"](global_adapter(), updates)


def test_the_initial_adapter_is_pefts_and_depends_on_nothing_but_the_seed():
    shapes = {"wide": (64, 4096), "narrow": (64, 64)}
    head = {"head": np.ones((2, 3), dtype=np.float32)}
    adapter = initial_adapter(shapes, 8, head, seed=5)
    for module, (rows, columns) in shapes.items():
        a, b = adapter.factors[module].a, adapter.factors[module].b
        bound = columns**-0.5
        assert a.shape == (8, columns)
        assert np.abs(a).max() <= bound * (1 + 1e-6)
        assert a.std() == pytest.approx(bound / 3**0.5, rel=0.1)
        assert b.shape == (rows, 8)
        assert not b.any()
    again = initial_adapter(dict(reversed(shapes.items())), 8, head, seed=5)
    assert all(np.array_equal(adapter.factors[m].a, again.factors[m].a) for m in shapes)
    assert not np.array_equal(adapter.factors["wide"].a, initial_adapter(shapes, 8, head, seed=6).factors["wide"].a)
    assert adapter.head["head"] is not head["head"]


def test_the_initial_adapter_has_the_distribution_of_pefts_own():
    torch = pytest.importorskip("torch")
    weight = torch.empty(16, 1024)
    torch.nn.init.kaiming_uniform_(weight, a=5**0.5)
    ours = initial_adapter({"m": (64, 1024)}, 16, {}, seed=0).factors["m"].a
    assert float(weight.abs().max()) == pytest.approx(float(np.abs(ours).max()), rel=0.01)
    assert float(weight.std()) == pytest.approx(float(ours.std()), rel=0.02)


def test_a_rank_larger_than_a_module_is_bad_input():
    with pytest.raises(InputError, match=r"bandit\.ranks: rank 9 .* small \(8 x 64\); valid: at most 8"):
        initial_adapter({"big": (64, 64), "small": (8, 64)}, 9, {}, seed=0)
