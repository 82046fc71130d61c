"""Coverage-normalised averaging: every coordinate is the mean over the devices that own it."""

from slimfed.clients.adapter import Adapter
from slimfed.strategies.aggregation.base import AGGREGATIONS, PLAIN, Accumulation, Aggregator, Frame
from slimfed.strategies.aggregation.means import Means


@AGGREGATIONS.register("coverage")
class Coverage(Aggregator):
    """The mean of factors over the devices that own a coordinate, weighted by examples.

    Factors of unequal rank and structure are scattered to global coordinates and divided by their owners' weight.

    With w_k the examples of device k and K(c) the devices that still have coordinate c (its row, column and rank)::

        x(c) = sum_{k in K(c)} w_k x_k(c) / sum_{k in K(c)} w_k

    A coordinate without owner keeps its previous value, so that neither pruning nor a low rank shrinks what others
    learnt (zero-filling would, as in HetLoRA's padding). Head tensors, which all devices own, are plain weighted means.
    The factors are averaged, not their products: mean(b) mean(a) is not mean(b a), as in FedIT.
    """

    sums_updates = True
    bounded_sensitivity = True

    def start(self, before: Adapter, frame: Frame = PLAIN) -> Accumulation:
        """An empty accumulation for a round that started from ``before``."""
        return Means(before, frame)
