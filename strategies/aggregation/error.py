"""How far an aggregation fell from the exact mean of what the devices have learnt."""

import math
from collections.abc import Sequence

import numpy as np

from slimfed.clients.update import Adapter, Factors, Update
from slimfed.strategies.aggregation.products import mean_products


def aggregation_error(before: Adapter, after: Adapter, updates: Sequence[Update], scaling: float) -> float | None:
    """||D - M|| / ||M||, Frobenius norms over all modules; None where there are no factors or no mean moved.

    M is the change that the exact mean of the products scaling * b_k a_k, weighted by examples, makes of scaling * b a
    before the round; each of its entries is the mean over the devices that own it. D is the change that the aggregation
    made of residual + scaling * b a. The products of the stacks are as large as the model and as deep as all ranks
    together, so each is made once.
    """
    if not before.factors or not updates:
        return None
    off, moved = 0.0, 0.0
    for module, stack in mean_products(before, [(update, update.examples) for update in updates]).items():
        old, new = before.factors[module], after.factors[module]
        mean = stack.left() @ stack.right()
        made = _product(new)
        if module in after.residual or module in before.residual:
            grown = after.residual.get(module, 0.0) - np.asarray(before.residual.get(module, 0.0), np.float64)
            made += grown / scaling
        off += _square(made - mean)
        moved += _square(mean - _product(old))
    return math.sqrt(off / moved) if moved > 0 else None


def _product(factors: Factors) -> np.ndarray:
    """b a, float64 [out, in]."""
    return factors.b.astype(np.float64) @ factors.a


def _square(matrix: np.ndarray) -> float:
    """||matrix||^2."""
    return float(np.vdot(matrix, matrix))
