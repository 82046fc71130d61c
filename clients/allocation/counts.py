"""From weights of blocks to whole units: water-filling, and rounding that meets the budget."""

from collections.abc import Sequence

import numpy as np

from slimfed.clients.structure import Blueprint

_ROUNDING = 1e-9
_HALVINGS = 200


def kept_shares(weights: np.ndarray, sizes: np.ndarray, least: np.ndarray, most: np.ndarray, kept: float) -> np.ndarray:
    """Shares k_b = min(most_b, max(least_b, c w_b)) with sum k_b n_b = ``kept``, by bisection on c (water-filling).

    All are float64 [blocks]: positive ``weights``, parameters ``sizes`` n_b, bounds in [0, 1]; ``kept`` is a number of
    parameters. If the bounds do not allow it, the shares are at the bound that is nearest.
    """

    def filled(level: float) -> np.ndarray:
        return np.minimum(most, np.maximum(least, level * weights))

    low, high = 0.0, float((most / weights).max())
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if filled(middle) @ sizes < kept else (low, middle)
    return filled(high)


def kept_counts(
    blueprint: Blueprint, weights: np.ndarray, sparsity: float, cap: float, alive: Sequence[int] | np.ndarray
) -> np.ndarray:
    """Units of every block that remain at ``sparsity``, int64 [blocks], where kept shares follow ``weights``.

    Every block keeps a unit, and at least the share 1 - ``cap`` of its units, and at most its ``alive`` ones. At least
    the share 1 - ``sparsity`` of all prunable parameters is kept, and less than a unit more, as far as these bounds
    allow it. Heads are large steps: they are rounded first, and what that leaves goes to the channels of all layers.
    """
    units = np.array([block.units for block in blueprint.blocks])
    each = np.array([block.unit_parameters for block in blueprint.blocks])
    most = np.asarray(alive, dtype=np.int64)
    least = np.minimum(most, np.maximum(1, np.ceil((1 - cap) * units - _ROUNDING).astype(np.int64)))
    budget = (1 - sparsity) * float(units @ each)
    counts, left = np.zeros(len(units), dtype=np.int64), budget
    rest = sorted(range(len(units)), key=lambda block: -each[block])
    while rest:
        sizes = (units * each).astype(np.float64)
        shares = kept_shares(weights[rest], sizes[rest], (least / units)[rest], (most / units)[rest], left)
        coarse = [block for block in rest if each[block] == each[rest[0]]]
        wanted = dict(zip(rest, shares * units[rest], strict=True))
        _round(counts, [(block, wanted[block]) for block in coarse], least, most)
        left -= float(counts[coarse] @ each[coarse])
        rest = rest[len(coarse) :]
    _meet(counts, budget, each, least, most)
    return counts


def _round(counts: np.ndarray, wanted: list[tuple[int, float]], least: np.ndarray, most: np.ndarray) -> None:
    """Whole units near those ``wanted`` of blocks of one kind; what rounding leaves goes to the next block.

    Blocks that rounding moves most come first.
    """
    carry = 0.0
    for block, units in sorted(wanted, key=lambda each: (-abs(each[1] - round(each[1])), each[0])):
        counts[block] = min(max(int(np.floor(units + carry + 0.5)), least[block]), most[block])
        carry += units - counts[block]


def _meet(counts: np.ndarray, budget: float, each: np.ndarray, least: np.ndarray, most: np.ndarray) -> None:
    """Add units until the budget is kept, the smallest first; then remove those beyond it, the largest first."""
    by_size = sorted(range(len(each)), key=lambda block: (each[block], block))
    for block in by_size:
        missing = (budget - float(counts @ each)) / each[block]
        counts[block] += min(most[block] - counts[block], max(0, int(np.ceil(missing - _ROUNDING))))
    for block in reversed(by_size):
        beyond = (float(counts @ each) - budget) / each[block]
        counts[block] -= min(counts[block] - least[block], max(0, int(np.floor(beyond + _ROUNDING))))
