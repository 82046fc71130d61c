"""Averaging after zeros have filled what a device has not: the plain way to unequal ranks, with its dilution."""

from slimfed.clients.adapter import Adapter
from slimfed.strategies.aggregation.base import AGGREGATIONS, PLAIN, Accumulation, Aggregator, Frame
from slimfed.strategies.aggregation.means import Means


@AGGREGATIONS.register("zero-padding")
class ZeroPadding(Aggregator):
    """The mean of factors over all devices, with zeros for what a device has not.

    x(c) = sum of w_k x_k(c) over the owners of c, divided by the weight of all devices (w_k: examples).

    What few devices own is diluted by all others: high ranks, and structure that most have pruned. It is the baseline
    that HetLoRA (arXiv 2401.06432) starts from. What nobody owns keeps its value: a rank whose a and b are both zero
    would never train again.
    """

    sums_updates = True

    def start(self, before: Adapter, frame: Frame = PLAIN) -> Accumulation:
        """An empty accumulation for a round that started from ``before``."""
        return Means(before, cover=lambda place, part: ...)
