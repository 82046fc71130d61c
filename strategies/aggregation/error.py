"""The error of an aggregation: its distance from the exact mean of the devices' products, estimated on some modules."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.update import Update
from slimfed.strategies.aggregation.products import mean_products

MODULES = 8
"""Number of modules on which the error is estimated."""
_DIRECTIONS = 128
"""Random directions of all these modules together."""
_FEWEST, _MOST = 16, 64
"""Directions of one module."""


@dataclass(frozen=True)
class ErrorEstimate:
    """||D - M|| / ||M|| and the standard error of this estimate, which is 0 if nothing was sampled."""

    value: float
    deviation: float


def sampled_modules(adapter: Adapter, draw: np.random.Generator) -> tuple[str, ...]:
    """Modules with factors, drawn without replacement; all of them if there are few."""
    names = list(adapter.factors)
    return tuple(names[index] for index in sorted(draw.permutation(len(names))[:MODULES].tolist()))


def restricted(adapter: Adapter, modules: Collection[str]) -> Adapter:
    """A copy of the factors and residuals of these ``modules``."""
    factors = {name: f.copy() for name, f in adapter.factors.items() if name in modules}
    return Adapter(factors, {}, {name: change for name, change in adapter.residual.items() if name in modules})


def aggregation_error(
    before: Adapter,
    after: Adapter,
    updates: Sequence[Update],
    scaling: float,
    modules: Collection[str] | None = None,
) -> ErrorEstimate | None:
    """||D - M|| / ||M||, Frobenius norms over all modules; None where there are no factors or no mean moved.

    M is the change that the exact mean of the products scaling * b_k a_k, weighted by examples, makes of scaling * b a
    before the round; each of its entries is the mean over the devices that own it. D is the change that the aggregation
    made of residual + scaling * b a.

    M is as large as the model. So the squares of both norms are estimated from ``modules`` (None: all), drawn at random
    from those of ``before``, and of each of these from products with random directions (Hutchinson's estimator), unless
    it has few columns. The deviation is that of a ratio of two totals in two stages (Cochran, Sampling Techniques,
    1977, sections 6.3 and 11.9), to first order. Where there is no error, the estimate is exactly that.
    """
    chosen = [name for name in before.factors if modules is None or name in modules]
    if not chosen or not updates:
        return None
    size = max(_FEWEST, min(_MOST, _DIRECTIONS // len(chosen)))
    own = [replace(update, adapter=restricted(update.adapter, chosen)) for update in updates]
    part = restricted(before, chosen)
    off, moved = [], []
    for module, stack in mean_products(part, [(update, update.report.examples) for update in own]).items():
        old, new = part.factors[module], after.factors[module]
        directions = _directions(module, old.a.shape[1], size)
        mean = stack.times(directions)
        made = _product(new, directions)
        if module in after.residual or module in before.residual:
            grown = after.residual.get(module, 0.0) - np.asarray(before.residual.get(module, 0.0), np.float64)
            made += grown @ directions / scaling
        off.append(_squares(made - mean))
        moved.append(_squares(mean - _product(old, directions)))
    return _ratio(off, moved, len(before.factors), size)


def _ratio(off: list[np.ndarray], moved: list[np.ndarray], modules: int, size: int) -> ErrorEstimate | None:
    """From the squares by direction of the sampled ones of ``modules`` modules."""
    total = sum(float(each.sum()) for each in moved)
    if total <= 0:
        return None
    count, square = len(off), sum(float(each.sum()) for each in off) / total
    if square == 0:
        return ErrorEstimate(0.0, 0.0)
    residues = [mine - square * other for mine, other in zip(off, moved, strict=True)]
    between = float(np.var([each.sum() for each in residues], ddof=1)) if 1 < count < modules else 0.0
    # The sum over the directions is a mean over independent ones, unless they were all columns.
    within = sum(len(each) * float(np.var(each, ddof=1)) for each in residues if len(each) == size)
    share = count / modules
    variance = ((1 - share) * between * count + share * within) / total**2
    return ErrorEstimate(math.sqrt(square), math.sqrt(variance) / (2 * math.sqrt(square)))


def _directions(module: str, columns: int, size: int) -> np.ndarray:
    """[columns, size], of which ||X d||^2 is ||X||^2: expected to be, or exactly where there are few columns.

    Every module has its own, so that their errors are independent.
    """
    if columns <= 2 * size:
        return np.eye(columns)
    return np.random.default_rng(crc32(module.encode())).standard_normal((columns, size)) / math.sqrt(size)


def _product(factors: Factors, directions: np.ndarray) -> np.ndarray:
    """b a d, float64 [out, directions]."""
    return factors.b.astype(np.float64) @ (factors.a @ directions)


def _squares(matrix: np.ndarray) -> np.ndarray:
    """The square of the norm of each column."""
    return np.square(matrix).sum(axis=0)
