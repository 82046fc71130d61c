"""The global adapter as one vector: a device's numbers lie where its structure and rank put them."""

from dataclasses import replace

import numpy as np
import pytest
from aggregating import BLUEPRINT, RANK, global_adapter, keeps, make_update
from hypothesis import given
from hypothesis import strategies as st

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.pruning.adapter_slicing import narrow, widen
from slimfed.clients.structure import Structure
from slimfed.strategies.coordinates.global_vector import GlobalVector
from slimfed.strategies.coordinates.places import device_shapes
from slimfed.strategies.coordinates.weights import Weights


@given(keeps, st.integers(1, RANK))
def test_a_device_s_numbers_lie_where_widening_puts_them(keep, rank) -> None:
    before = global_adapter()
    space = GlobalVector(before, BLUEPRINT)
    update = make_update(3, keep, rank, 5)
    placed = space.place(update)
    wide = widen(update.adapter, update.report.structure)
    expected = {
        name: Factors(np.pad(f.a, ((0, RANK - rank), (0, 0))), np.pad(f.b, ((0, 0), (0, RANK - rank))))
        for name, f in wide.factors.items()
    }
    assert np.array_equal(placed.values.numpy(), replace(wide, factors=expected).vector)
    assert placed.count == len(update.adapter.vector) == int(placed.owned.sum())
    own = narrow(before, BLUEPRINT.dense(), update.report.structure, rank)
    assert np.array_equal(space.values[placed.owned].numpy(), own.vector), "in the device's own order"


@given(st.lists(st.tuples(keeps, st.integers(1, RANK), st.integers(1, 2**28)), min_size=1, max_size=6))
def test_weights_are_those_of_the_owners(members) -> None:
    space = GlobalVector(global_adapter(), BLUEPRINT)
    weights, expected = Weights(space), np.zeros(len(space))
    for device, (keep, rank, weight) in enumerate(members):
        update = make_update(device, keep, rank, 1)
        placed = space.place(update)
        weights.add(weight, update.report.structure.keep, rank, placed)
        expected += weight * placed.owned.numpy()
    assert np.array_equal(weights.total().numpy(), expected)


@given(keeps, st.integers(1, RANK))
def test_sizes_are_the_lengths_of_indices(keep, rank) -> None:
    structure = Structure(BLUEPRINT, np.array(keep, dtype=bool))
    assert structure.sizes() == {key: len(kept) for key, kept in structure.indices().items()}
    own = narrow(global_adapter(), BLUEPRINT.dense(), structure, rank)
    shapes = {name: (f.a.shape, f.b.shape) for name, f in own.factors.items()}
    assert device_shapes(global_adapter(), structure, rank) == shapes


def test_the_vector_of_an_adapter_and_back() -> None:
    adapter = global_adapter()
    vector = adapter.vector
    doubled = adapter.with_vector(2 * vector)
    assert all(np.array_equal(two, 2 * one) for one, two in zip(adapter.tensors(), doubled.tensors(), strict=True))
    assert doubled.vector is doubled.vector, "tensors that are views of one vector are not copied"
    assert np.array_equal(replace(doubled, head={}).vector, np.concatenate([t.ravel() for t in doubled.tensors()[:-1]]))


def test_an_update_of_other_names_or_types_is_refused() -> None:
    space, update = GlobalVector(global_adapter(), BLUEPRINT), make_update(0, [1] * 5, 2, 1)
    with pytest.raises(ValueError, match=r"head.weight has shape none, expected \[2, 5\]"):
        space.place(replace(update, adapter=Adapter(update.adapter.factors, {})))
    head = {"head.weight": update.adapter.head["head.weight"].astype(np.float64)}
    with pytest.raises(ValueError, match=r"head\.weight is float64, expected float32"):
        space.place(replace(update, adapter=Adapter(update.adapter.factors, head)))
