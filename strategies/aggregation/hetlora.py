"""HetLoRA: zero-padded ranks, weighted by the norm of a device's product."""

import math

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.update import Update
from slimfed.strategies.aggregation.base import AGGREGATIONS, PLAIN, Accumulation, Aggregator, Frame
from slimfed.strategies.aggregation.means import Means

# Exact sums need whole weights: norms are counted in these steps, up to 512.
_STEP = 2.0**-20
_LARGEST = 2**29 - 1


@AGGREGATIONS.register("hetlora")
class HetLora(Aggregator):
    """The mean of factors padded with zeros to the largest rank, weighted by the norm of the product.

    HetLoRA (Cho et al., arXiv 2401.06432): w_k = ||B_k A_k||_F over all modules; examples are ignored.

    Ranks are padded with zeros up to the largest, as published; a device's pruned rows and columns are left out of the
    mean (the paper has no pruning). The head is weighted by examples. Truncation to a device's rank happens when it is
    sent its part; self-pruning of ranks is in ``clients/adapters/rank_pruning.py``.
    """

    plain_factors_only = True
    sums_updates = True

    def start(self, before: Adapter, frame: Frame = PLAIN) -> Accumulation:
        """An empty accumulation for a round that started from ``before``."""
        return Means(before, frame, cover="all-ranks", weigh=_norm_in_steps)


def product_norm(update: Update) -> float:
    """||B A||_F over all modules, by r x r matrices: ||B A||^2 = tr((B^T B)(A A^T))."""
    squares = []
    for factors in update.adapter.factors.values():
        a, b = factors.a.astype(np.float64), factors.b.astype(np.float64)
        squares.append(max(0.0, float(((b.T @ b) * (a @ a.T)).sum())))
    return math.sqrt(math.fsum(squares))


def _norm_in_steps(update: Update) -> int:
    return min(_LARGEST, max(1, round(product_norm(update) / _STEP)))
