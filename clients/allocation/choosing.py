"""Cutting one structure for the whole fleet to a sparsity, as ``pruning.allocation`` says."""

import numpy as np

from slimfed.clients.allocation.base import ALLOCATIONS
from slimfed.clients.allocation.counts import kept_counts
from slimfed.clients.pruning.selection import select
from slimfed.clients.spec import PruningSpec
from slimfed.clients.structure import Structure

_ROUNDING = 1e-9
"""Sparsities come out of float arithmetic."""


def select_allocated(
    structure: Structure,
    scores: np.ndarray,
    sparsity: float,
    pruning: PruningSpec,
    measured: np.ndarray | None = None,
) -> Structure:
    """Remove the lowest-scored units of every block until the structure has the shares of ``pruning.allocation``.

    ``scores`` is float32 [units], ``sparsity`` cumulative; ``measured``: what the allocation measured on text, float64
    [1 + blocks]. On the way to ``pruning.target_sparsity`` every block has lost the same part of what it loses in the
    end, rounded down to whole units, since removed units never return. Of equal scores the lower index is removed.
    Returns ``structure`` itself if no unit goes.
    """
    allocation = ALLOCATIONS[pruning.allocation]
    target = pruning.target_sparsity
    if allocation.by_scope:
        return select(structure, scores, sparsity, pruning.scope, target)
    blueprint = structure.blueprint
    whole = np.array([block.units for block in blueprint.blocks])
    alive = np.add.reduceat(structure.keep, blueprint.offsets[:-1], dtype=np.int64)
    end = max(sparsity, target or 0.0)
    weights = allocation.weights(blueprint, measured, 1 - end)
    last = kept_counts(blueprint, weights, end, pruning.allocation_cap, whole)
    if (last > alive).any():  # a model that began pruned lacks units that it should have
        last = kept_counts(blueprint, weights, end, pruning.allocation_cap, alive)
    way = sparsity / end if end > 0 else 0.0
    wanted = whole - np.floor(way * (whole - last) + _ROUNDING).astype(np.int64)
    keep = structure.keep.copy()
    for index, count in enumerate(np.minimum(alive, wanted)):
        units = structure.kept(index) + blueprint.offsets[index]
        order = np.lexsort((units, scores[units]))
        keep[units[order[: len(units) - count]]] = False
    return structure if np.array_equal(keep, structure.keep) else Structure(blueprint, keep)
