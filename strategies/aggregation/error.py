"""How far an aggregation fell from the exact mean of what the devices have learnt."""

import math
from collections.abc import Sequence

import numpy as np

from slimfed.clients.update import Adapter, Update
from slimfed.strategies.aggregation.products import mean_products


def aggregation_error(before: Adapter, after: Adapter, updates: Sequence[Update], scaling: float) -> float | None:
    """||D - M|| / ||M||, Frobenius norms over all modules; None where there are no factors or no mean moved.

    M is the change that the exact mean of the products scaling * b_k a_k, weighted by examples, makes of scaling * b a
    before the round; each of its entries is the mean over the devices that own it. D is the change that the aggregation
    made of residual + scaling * b a. Without a residual, and while the ranks add up to less than a module is wide, all
    is computed by inner products of the stacked factors: ||L R||^2 = tr((L^T L)(R R^T)).
    """
    if not before.factors or not updates:
        return None
    off, moved = 0.0, 0.0
    for module, stack in mean_products(before, [(update, update.examples) for update in updates]).items():
        old, new = before.factors[module], after.factors[module]
        left, right = stack.left(), stack.right()
        grown = after.residual.get(module, 0.0) - np.asarray(before.residual.get(module, 0.0), dtype=np.float64)
        off += _square(np.hstack([new.b, -left]), np.vstack([new.a, right]), grown / scaling)
        moved += _square(np.hstack([left, -old.b]), np.vstack([right, old.a]), np.zeros(()))
    return math.sqrt(off / moved) if moved > 0 else None


def _square(left: np.ndarray, right: np.ndarray, rest: np.ndarray) -> float:
    """||left @ right + rest||^2."""
    if not rest.any() and left.shape[1] < min(len(left), right.shape[1]):
        return max(0.0, float(((left.T @ left) * (right @ right.T)).sum()))
    return float(np.square(left @ right + rest).sum())
