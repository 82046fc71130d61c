"""Zero-padding: averaging with zeros for a device's missing coordinates."""

from slimfed.clients.adapter import Adapter
from slimfed.strategies.aggregation.base import AGGREGATIONS, PLAIN, Accumulation, Aggregator, Frame
from slimfed.strategies.aggregation.means import Means


@AGGREGATIONS.register("zero-padding")
class ZeroPadding(Aggregator):
    """The mean of factors over all devices, with zeros for missing coordinates.

    x(c) = sum of w_k x_k(c) over the owners of c, divided by the weight of all devices (w_k: examples).

    Coordinates with few owners shrink: high ranks, and structure that most devices have pruned. It is the baseline that
    HetLoRA (arXiv 2401.06432) starts from. Coordinates without owner keep their value, since a rank whose a and b are
    both zero would have no gradient.
    """

    sums_updates = True

    def start(self, before: Adapter, frame: Frame = PLAIN) -> Accumulation:
        """An empty accumulation for a round that started from ``before``."""
        return Means(before, frame, cover="everything")
