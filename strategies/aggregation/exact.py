"""Means that are exact in the product: mean factors, and what the mean product has beyond them, in the base."""

from collections.abc import Callable
from dataclasses import replace

from slimfed.clients.adapter import Adapter
from slimfed.clients.update import Update
from slimfed.strategies.aggregation.base import Accumulation, Frame
from slimfed.strategies.aggregation.flora import grown
from slimfed.strategies.aggregation.products import Members, mean_products


class ExactMeans:
    """Factors become the means a and b of ``means``, and residual += scaling * (mean(b_k a_k) - b a).

    The sum of both is exactly the mean of the products. With pruned devices every entry is the mean over its owners.
    ``weigh``: the weight of an update, that of ``means``. Other tensors than factors are those of ``means``.
    """

    def __init__(
        self,
        before: Adapter,
        frame: Frame,
        means: Accumulation,
        weigh: Callable[[Update], int] = lambda update: update.report.examples,
    ) -> None:
        self._before = before
        self._frame = frame
        self._means = means
        self._weigh = weigh
        self._members = Members(before)

    def add(self, update: Update, weight: int | None = None) -> None:
        """Add the factors to the sums, and keep a reference to them."""
        self._means.add(update, weight)
        self._members.add(update, self._weigh(update) if weight is None else weight)

    def merge(self, other: "ExactMeans") -> None:
        """Add the sums and references of the other accumulation."""
        self._means.merge(other._means)
        self._members.merge(other._members)

    def result(self) -> Adapter:
        """Mean factors on a changed base."""
        means = self._means.result()
        if not self._members:
            return self._before
        residual = {}
        for module, stack in mean_products(self._before, self._members.ordered()).items():
            mean = means.factors[module]
            missing = stack.left() @ stack.right() - mean.b.astype(float) @ mean.a.astype(float)
            residual[module] = grown(self._before, module, self._frame.scaling * missing)
        return replace(means, residual=residual)
