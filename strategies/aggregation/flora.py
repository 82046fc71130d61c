"""FLoRA: the devices' products are stacked and merged into the base; every round starts from new factors."""

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.update import Update
from slimfed.strategies.aggregation.base import AGGREGATIONS, PLAIN, Accumulation, Aggregator, Frame
from slimfed.strategies.aggregation.initial import initial_factors
from slimfed.strategies.aggregation.means import Means, head_only
from slimfed.strategies.aggregation.products import Members, mean_products


@AGGREGATIONS.register("flora")
class Flora(Aggregator):
    """The mean product is merged into the base; every round starts from fresh factors.

    FLoRA (Wang et al., arXiv 2409.05976): residual += scaling * sum p_k b_k a_k, exactly; then a is drawn, b is 0.

    Stacking b_k side by side and p_k a_k below each other is that sum (the weight goes on one factor only). With pruned
    devices every entry is the mean over its owners. In the next round devices train new factors on the changed base, so
    messages to devices grow by the residual.
    """

    plain_factors_only = True
    gives_direction = False
    changes_base = True

    def start(self, before: Adapter, frame: Frame = PLAIN) -> Accumulation:
        """An empty accumulation for a round that started from ``before``."""
        return _Stacked(before, frame)


class _Stacked:
    def __init__(self, before: Adapter, frame: Frame) -> None:
        self._before = before
        self._frame = frame
        self._members = Members(before)
        self._head = Means(Adapter({}, before.head))

    def add(self, update: Update, weight: int | None = None) -> None:
        """Keep a reference to the factors, and add the head to its sum."""
        self._members.add(update, weight)
        self._head.add(head_only(update), weight)

    def merge(self, other: "_Stacked") -> None:
        """Add the references and the sum of heads of the other accumulation."""
        self._members.merge(other._members)
        self._head.merge(other._head)

    def result(self) -> Adapter:
        """Fresh factors on a changed base."""
        if not self._members:
            return self._before
        residual, factors = {}, {}
        for module, stack in mean_products(self._before, self._members.ordered()).items():
            change = self._frame.scaling * (stack.left() @ stack.right())
            residual[module] = grown(self._before, module, change)
            factors[module] = initial_factors(
                *stack.shape, len(self._before.factors[module].a), self._frame.seed, module
            )
        return Adapter(factors, self._head.result().head, residual)


def grown(before: Adapter, module: str, change: np.ndarray) -> np.ndarray:
    """The residual of a module after ``change`` [out, in], float32."""
    return (before.residual.get(module, np.float32(0.0)) + change).astype(np.float32)
