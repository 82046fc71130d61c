"""FlexLoRA: the mean product, factored again by its largest singular values."""

import numpy as np

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.update import Update
from slimfed.strategies.aggregation.base import AGGREGATIONS, PLAIN, Accumulation, Aggregator, Frame
from slimfed.strategies.aggregation.initial import initial_factors
from slimfed.strategies.aggregation.means import Means, head_only
from slimfed.strategies.aggregation.products import Members, mean_products

# Singular values below this share of the largest are rounding errors and count as 0.
_EMPTY = 1e-7


@AGGREGATIONS.register("flexlora")
class FlexLora(Aggregator):
    """The mean product, factored again by its largest singular values.

    FlexLoRA (Bai et al., arXiv 2402.11505): mean(b_k a_k) = U S V^T, a = V^T[:r], b = U[:, :r] S[:r].

    A device of rank r is sent the first r of them. The decomposition is that of a core of at most R x R, with R the sum
    of the ranks, between the orthogonal factors of the stacks; [out, in] is not formed. A rank without singular value
    gets a new random row of a, since with a and b both zero it would have no gradient. With pruned devices every entry
    is the mean over its owners.
    """

    plain_factors_only = True
    gives_direction = False

    def start(self, before: Adapter, frame: Frame = PLAIN) -> Accumulation:
        """An empty accumulation for a round that started from ``before``."""
        return _Decomposed(before, frame)


class _Decomposed:
    def __init__(self, before: Adapter, frame: Frame) -> None:
        self._before = before
        self._frame = frame
        self._members = Members(before)
        self._head = Means(Adapter({}, before.head))

    def add(self, update: Update, weight: int | None = None) -> None:
        """Keep a reference to the factors, and add the head to its sum."""
        self._members.add(update, weight)
        self._head.add(head_only(update), weight)

    def merge(self, other: "_Decomposed") -> None:
        """Add the references and the sum of heads of the other accumulation."""
        self._members.merge(other._members)
        self._head.merge(other._head)

    def result(self) -> Adapter:
        """The best factors of the largest rank."""
        if not self._members:
            return self._before
        factors = {}
        for module, stack in mean_products(self._before, self._members.ordered()).items():
            fresh = initial_factors(*stack.shape, len(self._before.factors[module].a), self._frame.seed, module)
            factors[module] = truncated(stack.left(), stack.right(), fresh)
        return Adapter(factors, self._head.result().head, self._before.residual)


def truncated(left: np.ndarray, right: np.ndarray, fresh: Factors) -> Factors:
    """The best approximation of ``left @ right`` in the rank of ``fresh``, whose rows of a fill the empty ranks."""
    q_left, r_left = np.linalg.qr(left)
    q_right, r_right = np.linalg.qr(right.T)
    u, s, vt = np.linalg.svd(r_left @ r_right.T, full_matrices=False)
    count = min(len(fresh.a), int((s > _EMPTY * s[0]).sum()) if s[0] > 0 else 0)
    a, b = vt[:count] @ q_right.T, q_left @ (u[:, :count] * s[:count])
    signs = np.sign(a[np.arange(count), np.abs(a).argmax(axis=1)]) if count else np.ones(0)
    factors = Factors(fresh.a.copy(), np.zeros_like(fresh.b))
    factors.a[:count], factors.b[:, :count] = a * signs[:, None], b * signs
    return factors
