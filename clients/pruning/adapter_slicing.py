"""Slicing an adapter to the kept units of a structure, and the inverse."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from slimfed.clients.adapter import Adapter, Delta, Factors
from slimfed.clients.structure import Structure


def narrow(adapter: Adapter, has: Structure, wants: Structure, rank: int | None = None) -> Adapter:
    """Slice an adapter of shape ``has`` to that of ``wants`` (within ``has``), and to its first ``rank`` ranks.

    The residual is sliced like its weights. Tensors of modules are copied; the head is shared. ``has`` is
    ``blueprint.dense()`` for the global adapter. Raises ``ValueError`` if ``wants`` keeps units that ``has`` lacks.
    """
    if not wants.within(has):
        raise ValueError("an adapter can only be cut to a structure within its own")
    positions = wants.indices() if has.keep.all() else _positions(has, wants)
    factors = {}
    for module, f in adapter.factors.items():
        a, b = f.a[:rank], f.b[:, :rank]
        columns, rows = positions.get((module, "in")), positions.get((module, "out"))
        factors[module] = Factors(
            a.copy() if columns is None else a.take(columns, axis=1),
            np.array(b if rows is None else b[rows], order="C"),
            None if f.gate is None else f.gate[:rank].copy(),
        )
    residual = {
        module: np.array(_part(change, positions.get((module, "out")), positions.get((module, "in"))), order="C")
        for module, change in adapter.residual.items()
    }
    deltas = {
        module: _cut_delta(delta, positions.get((module, "out")), positions.get((module, "in")), rank)
        for module, delta in adapter.deltas.items()
    }
    return replace(adapter, factors=factors, residual=residual, deltas=deltas)


def _positions(has: Structure, wants: Structure) -> dict[tuple[str, str], np.ndarray]:
    had, found = has.indices(), wants.indices()
    return {key: np.searchsorted(had[key], kept) for key, kept in found.items()}


def widen(adapter: Adapter, has: Structure) -> Adapter:
    """Inverse of :func:`narrow` except for the rank: an adapter in the shape of ``has`` in the coordinates of the base.

    Missing rows and columns are zero; the head is shared.
    """
    kept, full = has.indices(), has.blueprint.dense().indices()
    factors = {}
    for module, f in adapter.factors.items():
        a, b = f.a, f.b
        if (module, "in") in kept:
            a = np.zeros((len(f.a), len(full[module, "in"])), dtype=np.float32)
            a[:, kept[module, "in"]] = f.a
        if (module, "out") in kept:
            b = np.zeros((len(full[module, "out"]), f.b.shape[1]), dtype=np.float32)
            b[kept[module, "out"]] = f.b
        factors[module] = Factors(a, b, f.gate)
    residual = {}
    for module, change in adapter.residual.items():
        rows, columns = (
            len(full.get((module, side), range(n))) for side, n in zip(("out", "in"), change.shape, strict=True)
        )
        whole = np.zeros((rows, columns), dtype=np.float32)
        whole[np.ix_(kept.get((module, "out"), np.arange(rows)), kept.get((module, "in"), np.arange(columns)))] = change
        residual[module] = whole
    deltas = {
        module: place_delta(delta, (module, "out"), (module, "in"), kept, full)
        for module, delta in adapter.deltas.items()
    }
    return replace(adapter, factors=factors, residual=residual, deltas=deltas)


def place_delta(
    delta: Delta,
    out: tuple[str, str],
    into: tuple[str, str],
    kept: Mapping[tuple[str, str], np.ndarray],
    full: Mapping[tuple[str, str], np.ndarray],
) -> Delta:
    """A delta of a cut module in the coordinates of the unpruned one, which has the rows and columns of ``full``."""
    if delta.indices is None:
        raise ValueError("a delta without its entries has no place")
    rows, columns = np.divmod(delta.indices, delta.shape[1])
    shape = (len(full.get(out, range(delta.shape[0]))), len(full.get(into, range(delta.shape[1]))))
    rows = kept[out][rows] if out in kept else rows
    columns = kept[into][columns] if into in kept else columns
    return replace(delta, shape=shape, indices=(rows * shape[1] + columns).astype(np.int32))


def _cut_delta(delta: Delta, rows: np.ndarray | None, columns: np.ndarray | None, rank: int | None) -> Delta:
    """The entries of a delta that lie in the given rows and columns, where they lie among these; None: all."""
    if delta.indices is None:  # all entries of the weight
        whole = _part(delta.values.reshape(delta.shape), rows, columns)
        return Delta((whole.shape[0], whole.shape[1]), np.array(whole, order="C").reshape(-1))
    own = delta.owned(rows, columns, rank)
    at = list(np.divmod(delta.indices[own], delta.shape[1]))
    shape = list(delta.shape)
    for axis, kept in enumerate((rows, columns)):
        if kept is not None:
            at[axis], shape[axis] = np.searchsorted(kept, at[axis]), len(kept)
    indices = (at[0] * shape[1] + at[1]).astype(np.int32)
    return Delta((shape[0], shape[1]), delta.values[own], indices, None if delta.levels is None else delta.levels[own])


def _part(matrix: np.ndarray, rows: np.ndarray | None, columns: np.ndarray | None) -> np.ndarray:
    """The given rows and columns of a matrix; None: all."""
    matrix = matrix if rows is None else matrix[rows]
    return matrix if columns is None else matrix[:, columns]
