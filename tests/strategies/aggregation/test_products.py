"""Aggregation by products: exact where it promises to be, in any order, for devices of any rank and structure."""

from dataclasses import replace

import numpy as np
import pytest
from aggregating import RANK, SHAPES, fleets, global_adapter, make_update, tensors
from hypothesis import given
from hypothesis import strategies as st

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.pruning.adapter_slicing import widen
from slimfed.clients.structure import Block, Blueprint, Cut, Structure
from slimfed.strategies.aggregation import AGGREGATIONS, Frame
from slimfed.strategies.aggregation.error import aggregation_error
from slimfed.strategies.aggregation.hetlora import product_norm
from slimfed.strategies.aggregation.products import Members, mean_products
from slimfed.strategies.coordinates.places import places

FRAME = Frame(scaling=1.5, seed=3)
EVERY = sorted(AGGREGATIONS)


def merged(adapter: Adapter, scaling: float = FRAME.scaling) -> dict[str, np.ndarray]:
    """What the adapter changes of every module: residual + scaling * b a."""
    return {
        m: adapter.residual.get(m, 0.0) + scaling * (f.b.astype(float) @ f.a.astype(float))
        for m, f in adapter.factors.items()
    }


def mean_of_owners(before: Adapter, updates) -> dict[str, np.ndarray]:
    """scaling * b a of every device, entry by entry: the mean over those that have row and column."""
    result = {}
    for module, (rows, columns) in SHAPES.items():
        total, weight = np.zeros((rows, columns)), np.zeros((rows, columns))
        for update in updates:
            owns = np.zeros((rows, columns))
            place = places(before, update.report.structure, update.report.rank)[module]
            owns[place.rows] += 1
            only = np.zeros((rows, columns))
            only[:, place.columns] = 1
            owns *= only
            wide = widen(update.adapter, update.report.structure).factors[module]
            total += update.report.examples * owns * (wide.b.astype(float) @ wide.a.astype(float))
            weight += update.report.examples * owns
        old = before.factors[module].b.astype(float) @ before.factors[module].a.astype(float)
        result[module] = FRAME.scaling * np.where(weight > 0, total / np.maximum(weight, 1), old)
    return result


@given(fleets)
def test_the_stacks_are_the_mean_over_the_owners_of_every_entry(updates):
    before, members = global_adapter(), Members(global_adapter())
    for update in updates:
        members.add(update)
    expected = mean_of_owners(before, updates)
    for module, stack in mean_products(before, members.ordered()).items():
        product = FRAME.scaling * (stack.left() @ stack.right())
        np.testing.assert_allclose(product, expected[module], rtol=1e-5, atol=1e-5 * np.abs(expected[module]).max())


def test_the_error_of_large_modules_is_estimated():
    blueprint = Blueprint("odd", (Block("ffn", 0, "ffn", 20, 9, (Cut("x", "out", 9),)),))
    draw = np.random.default_rng(4)

    def adapter() -> Adapter:
        return Adapter({"x": Factors(*(draw.normal(size=s).astype(np.float32) for s in ((4, 300), (180, 4))))}, {})

    before, template = adapter(), make_update(0, [1] * 5, 1, 1)
    fields = {"structure": Structure(blueprint, np.ones(20, dtype=bool)), "rank": 4}
    updates = [replace(template.with_report(**fields, device=n, examples=n + 1), adapter=adapter()) for n in range(5)]
    after = AGGREGATIONS["zero-padding"](before, updates, FRAME)
    own = [(u.report.examples / 15, u.adapter.factors["x"]) for u in updates]
    mean = sum(share * (f.b.astype(float) @ f.a) for share, f in own)
    old, new = (a.factors["x"].b.astype(float) @ a.factors["x"].a for a in (before, after))
    expected = np.linalg.norm(new - mean) / np.linalg.norm(mean - old)
    error = aggregation_error(before, after, updates, FRAME.scaling)
    assert error.value == pytest.approx(expected, rel=0.1)
    assert error.value != expected


@pytest.mark.parametrize("name", ["flora", "fedex"])
@given(updates=fleets)
def test_what_goes_into_the_base_makes_the_mean_exact(name, updates):
    before = global_adapter()
    after = AGGREGATIONS[name](before, updates, FRAME)
    for module, value in merged(after).items():
        expected = mean_of_owners(before, updates)[module]
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(expected).max()))


@given(fleets)
def test_flora_adds_to_the_residual_and_starts_from_factors_that_change_nothing(updates):
    once = AGGREGATIONS["flora"](global_adapter(), updates, FRAME)
    assert not any(f.b.any() for f in once.factors.values())
    assert all(f.a.any(axis=1).all() for f in once.factors.values())
    twice = AGGREGATIONS["flora"](once, updates, Frame(1.5, seed=4))
    assert any((twice.factors[m].a != f.a).any() for m, f in once.factors.items()), "fresh draws every round"
    base = Adapter(once.factors, once.head)
    for module, value in mean_of_owners(base, updates).items():
        grown = twice.residual[module] - once.residual[module]
        np.testing.assert_allclose(grown, value, rtol=1e-3, atol=2e-5 * max(1.0, np.abs(twice.residual[module]).max()))


@given(st.lists(st.tuples(st.integers(1, 2), st.integers(1, 500)), min_size=1, max_size=2))
def test_flexlora_loses_nothing_while_the_ranks_suffice(rows):
    """At most two devices of at most rank two: their mean has rank four, which is the largest here."""
    updates = [make_update(device, [1] * 5, rank, examples) for device, (rank, examples) in enumerate(rows)]
    before = global_adapter()
    after = AGGREGATIONS["flexlora"](before, updates, FRAME)
    for module, value in merged(after).items():
        expected = mean_of_owners(before, updates)[module]
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@given(fleets)
def test_flexlora_is_the_best_of_its_rank_and_leaves_no_rank_dead(updates):
    before = global_adapter()
    after = AGGREGATIONS["flexlora"](before, updates, FRAME)
    for module, expected in mean_of_owners(before, updates).items():
        singular = np.linalg.svd(expected, compute_uv=False)
        best = np.linalg.norm(singular[RANK:])
        distance = np.linalg.norm(merged(after)[module] - expected)
        assert distance <= best + 1e-5 * max(1.0, singular[0])
        assert after.factors[module].a.any(axis=1).all()


def test_flexlora_refills_the_ranks_that_the_mean_does_not_need():
    updates = [make_update(0, [1] * 5, 1, 10)]
    after = AGGREGATIONS["flexlora"](global_adapter(), updates, FRAME)
    for factors in after.factors.values():
        assert factors.b[:, :1].any()
        assert not factors.b[:, 1:].any()
        assert np.linalg.matrix_rank(factors.a) == min(factors.a.shape)


@pytest.mark.parametrize("name", EVERY)
@given(data=st.data(), rows=st.lists(st.tuples(st.integers(1, 500), st.booleans()), min_size=1, max_size=5))
def test_the_order_of_the_replies_changes_no_bit(name, data, rows):
    unlike = name not in ("fedavg", "soups")
    updates = [
        make_update(d, [1, 1, int(odd and unlike), 1, 1], 1 + (d % 3 if unlike else 2), n)
        for d, (n, odd) in enumerate(rows)
    ]
    shuffled = data.draw(st.permutations(updates))
    one, other = (AGGREGATIONS[name](global_adapter(), order, FRAME) for order in (updates, shuffled))
    for (key, tensor), (_, twin) in zip(tensors(one).items(), tensors(other).items(), strict=True):
        np.testing.assert_array_equal(tensor, twin, err_msg=key)
    assert all(np.array_equal(value, other.residual[m]) for m, value in one.residual.items())


@pytest.mark.parametrize("name", EVERY)
def test_who_merges_into_the_base_says_so(name):
    updates = [make_update(d, [1] * 5, RANK, 7 * (d + 1)) for d in range(3)]
    assert bool(AGGREGATIONS[name](global_adapter(), updates, FRAME).residual) is AGGREGATIONS[name].changes_base


@pytest.mark.parametrize("name", EVERY)
def test_equal_devices_that_agree_are_the_result(name):
    """Whatever is averaged, the mean of equals is they: in the product, and in the head."""
    twin = make_update(0, [1] * 5, RANK, 7)
    updates = [make_update(d, [1] * 5, RANK, 7 * (d + 1)) for d in range(3)]
    same = [replace(u, adapter=twin.adapter) for u in updates]
    after = AGGREGATIONS[name](global_adapter(), same, FRAME)
    for module, value in merged(after).items():
        expected = merged(twin.adapter)[module]
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(after.head["head.weight"], twin.adapter.head["head.weight"], rtol=1e-6)


def test_zero_padding_dilutes_what_few_own_and_hetlora_only_the_ranks():
    wide, slim = make_update(0, [1] * 5, RANK, 1), make_update(1, [1, 1, 0, 1, 1], 1, 1)
    before = global_adapter()
    padded = AGGREGATIONS["zero-padding"](before, [wide, slim])
    np.testing.assert_allclose(padded.factors["qk"].a[1:], wide.adapter.factors["qk"].a[1:] / 2, rtol=1e-6)
    np.testing.assert_allclose(padded.factors["up"].b[0, :1], wide.adapter.factors["up"].b[0, :1] / 2, rtol=1e-6)
    het = AGGREGATIONS["hetlora"](before, [wide, slim])
    share = product_norm(wide) / (product_norm(wide) + product_norm(slim))
    np.testing.assert_allclose(het.factors["qk"].a[1:], share * wide.adapter.factors["qk"].a[1:], rtol=1e-4)
    np.testing.assert_allclose(het.factors["up"].b[0, :1], wide.adapter.factors["up"].b[0, :1], rtol=1e-6)


def test_the_norm_needs_no_full_matrix():
    update = make_update(3, [1] * 5, 2, 5)
    products = [f.b.astype(float) @ f.a.astype(float) for f in update.adapter.factors.values()]
    expected = np.sqrt(sum(np.square(p).sum() for p in products))
    assert product_norm(update) == pytest.approx(expected, rel=1e-6)


def test_r2sp_takes_what_is_missing_from_what_was_sent():
    before = global_adapter()
    update, other = make_update(0, [1] * 5, RANK, 3), make_update(1, [1] * 5, 1, 1)
    after = AGGREGATIONS["r2sp"](before, [update, other])
    expected = 0.75 * update.adapter.factors["o"].a[1:] + 0.25 * before.factors["o"].a[1:]
    np.testing.assert_allclose(after.factors["o"].a[1:], expected, rtol=1e-5, atol=1e-6)


def test_soups_weigh_their_ingredients_alike():
    updates = [make_update(0, [1, 0, 1, 1, 0], RANK, 1), make_update(1, [1, 0, 1, 1, 0], RANK, 999)]
    after = AGGREGATIONS["soups"](global_adapter(), updates)
    expected = (updates[0].adapter.factors["down"].b + updates[1].adapter.factors["down"].b) / 2
    np.testing.assert_allclose(after.factors["down"].b, expected, rtol=1e-5, atol=1e-6)


@given(count=st.integers(1, 4), examples=st.integers(1, 500))
def test_a_soup_is_the_mean_of_the_merged_weights(count: int, examples: int) -> None:
    before = global_adapter()
    updates = [make_update(device, [1, 0, 1, 1, 0], RANK, 1 + device * examples) for device in range(count)]
    after = merged(AGGREGATIONS["soups"](before, updates, FRAME))
    for module, expected in mean_of_owners(before, [update.with_report(examples=1) for update in updates]).items():
        np.testing.assert_allclose(after[module], expected, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(expected).max()))


def test_a_module_cut_on_both_sides_is_refused():
    blueprint = Blueprint("odd", (Block("ffn", 0, "ffn", 2, 5, (Cut("x", "out", 1), Cut("x", "in", 1))),))
    before = Adapter({"x": Factors(np.ones((1, 2), np.float32), np.ones((2, 1), np.float32))}, {})
    small = Adapter({"x": Factors(np.ones((1, 1), np.float32), np.ones((1, 1), np.float32))}, {})
    template = make_update(0, [1] * 5, 1, 1)
    members = Members(before)
    for device in range(2):
        keep = np.arange(2) == device
        own = template.with_report(device=device, structure=Structure(blueprint, keep))
        members.add(replace(own, adapter=small))
    with pytest.raises(ValueError, match="x is cut on both sides"):
        mean_products(before, members.ordered())


@given(fleets)
def test_the_error_is_the_distance_of_the_full_matrices(updates):
    before = global_adapter()
    for name in ("coverage", "zero-padding", "flexlora", "fedex"):
        after = AGGREGATIONS[name](before, updates, FRAME)
        mean, old, new = mean_of_owners(before, updates), merged(before), merged(after)
        off = np.sqrt(sum(np.square(new[m] - mean[m]).sum() for m in SHAPES))
        moved = np.sqrt(sum(np.square(mean[m] - old[m]).sum() for m in SHAPES))
        error = aggregation_error(before, after, updates, FRAME.scaling)
        assert error.value == pytest.approx(off / moved, rel=1e-3, abs=1e-3)
        assert error.deviation == 0.0


@pytest.mark.parametrize("name", ["flora", "fedex"])
@given(updates=fleets)
def test_exact_ways_have_no_error(name, updates):
    before = global_adapter()
    after = AGGREGATIONS[name](before, updates, FRAME)
    error = aggregation_error(before, after, updates, FRAME.scaling)  # None: the mean is where it was
    assert (error.value if error else 0.0) == pytest.approx(0.0, abs=1e-4)


def test_an_error_needs_factors_and_updates():
    assert aggregation_error(Adapter({}, {}), Adapter({}, {}), [make_update(0, [1] * 5, 1, 1)], 1.0) is None
    assert aggregation_error(global_adapter(), global_adapter(), [], 1.0) is None


@given(fleets)
def test_a_stack_times_directions_is_the_stacks_multiplied(updates):
    members = Members(global_adapter())
    for update in updates:
        members.add(update)
    for stack in mean_products(global_adapter(), members.ordered()).values():
        directions = np.random.default_rng(0).normal(size=(stack.shape[1], 3))
        expected = stack.left() @ stack.right() @ directions
        np.testing.assert_allclose(stack.times(directions), expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
