"""R2SP: a device's missing coordinates take the value that was sent, then all devices are averaged."""

from slimfed.clients.adapter import Adapter
from slimfed.strategies.aggregation.base import AGGREGATIONS, PLAIN, Accumulation, Aggregator, Frame
from slimfed.strategies.aggregation.means import Means


@AGGREGATIONS.register("r2sp")
class R2sp(Aggregator):
    """The mean of factors over all devices, with the value that was sent for missing coordinates.

    FedMP's residual recovery (Jiang et al., ICDE 2022), on factors.

    With w_k the examples of device k, K(c) the owners of coordinate c and x0 the global value before the round::

        x(c) = (sum_{k in K(c)} w_k x_k(c) + sum_{k not in K(c)} w_k x0(c)) / sum_k w_k

    No coordinate shrinks, but coordinates with few owners move slowly.
    """

    plain_factors_only = True

    def start(self, before: Adapter, frame: Frame = PLAIN) -> Accumulation:
        """An empty accumulation for a round that started from ``before``."""
        return Means(before, frame, cover="everything", recover=True)
