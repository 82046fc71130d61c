"""The error of an aggregation: its distance from the exact mean of the devices' products."""

import math
from collections.abc import Sequence

import numpy as np

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.update import Update
from slimfed.strategies.aggregation.products import mean_products

_DIRECTIONS = 64


def aggregation_error(before: Adapter, after: Adapter, updates: Sequence[Update], scaling: float) -> float | None:
    """||D - M|| / ||M||, Frobenius norms over all modules; None where there are no factors or no mean moved.

    M is the change that the exact mean of the products scaling * b_k a_k, weighted by examples, makes of scaling * b a
    before the round; each of its entries is the mean over the devices that own it. D is the change that the aggregation
    made of residual + scaling * b a. M is as large as the model, and its rank is the sum of all ranks, so norms of
    modules with many columns are estimated from products with random directions (Hutchinson's estimator): to within a
    few per cent over a model's modules, about ten per cent for a single module of low rank, and zero where there is no
    error.
    """
    if not before.factors or not updates:
        return None
    off, moved = 0.0, 0.0
    for module, stack in mean_products(before, [(update, update.report.examples) for update in updates]).items():
        old, new = before.factors[module], after.factors[module]
        directions = _directions(old.a.shape[1])
        mean = stack.left() @ (stack.right() @ directions)
        made = _product(new, directions)
        if module in after.residual or module in before.residual:
            grown = after.residual.get(module, 0.0) - np.asarray(before.residual.get(module, 0.0), np.float64)
            made += grown @ directions / scaling
        off += _square(made - mean)
        moved += _square(mean - _product(old, directions))
    return math.sqrt(off / moved) if moved > 0 else None


def _directions(size: int) -> np.ndarray:
    """[size, some], of which ||X d||^2 is ||X||^2: expected to be, or exactly where ``size`` is small."""
    if size <= 2 * _DIRECTIONS:
        return np.eye(size)
    return np.random.default_rng(size).standard_normal((size, _DIRECTIONS)) / math.sqrt(_DIRECTIONS)


def _product(factors: Factors, directions: np.ndarray) -> np.ndarray:
    """b a d, float64 [out, some]."""
    return factors.b.astype(np.float64) @ (factors.a @ directions)


def _square(matrix: np.ndarray) -> float:
    """||matrix||^2."""
    return float(np.vdot(matrix, matrix))
