"""FedEx-LoRA: factors are averaged, and their difference from the mean product is merged into the base."""

from slimfed.clients.adapter import Adapter
from slimfed.clients.update import Update
from slimfed.strategies.aggregation.base import AGGREGATIONS, PLAIN, Accumulation, Aggregator, Frame
from slimfed.strategies.aggregation.flora import grown
from slimfed.strategies.aggregation.means import Means
from slimfed.strategies.aggregation.products import Members, mean_products


@AGGREGATIONS.register("fedex")
class FedEx(Aggregator):
    """The mean of factors; the difference from the mean product is merged into the base.

    FedEx-LoRA (Singhal et al., arXiv 2410.09432), extended to unequal devices.

    The factors become coverage-normalised means a and b, and residual += scaling * (mean(b_k a_k) - b a), so that the
    sum of both is exactly the mean of the products. With pruned devices every entry is the mean over its owners.
    """

    plain_factors_only = True
    gives_direction = False

    def start(self, before: Adapter, frame: Frame = PLAIN) -> Accumulation:
        """An empty accumulation for a round that started from ``before``."""
        return _Exact(before, frame)


class _Exact:
    def __init__(self, before: Adapter, frame: Frame) -> None:
        self._before = before
        self._frame = frame
        self._members = Members(before)
        self._means = Means(before, frame)

    def add(self, update: Update, weight: int | None = None) -> None:
        """Add the factors to the sums, and keep a reference to them."""
        self._means.add(update, weight)
        self._members.add(update, weight)

    def merge(self, other: "_Exact") -> None:
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
        return Adapter(means.factors, means.head, residual)
