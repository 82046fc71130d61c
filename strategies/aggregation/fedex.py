"""FedEx-LoRA: factors are averaged, and their difference from the mean product is merged into the base."""

from slimfed.clients.adapter import Adapter
from slimfed.strategies.aggregation.base import AGGREGATIONS, PLAIN, Accumulation, Aggregator, Frame
from slimfed.strategies.aggregation.exact import ExactMeans
from slimfed.strategies.aggregation.means import Means


@AGGREGATIONS.register("fedex")
class FedEx(Aggregator):
    """The mean of factors; the difference from the mean product is merged into the base.

    FedEx-LoRA (Singhal et al., arXiv 2410.09432), extended to unequal devices: coverage-normalised means.
    """

    plain_factors_only = True
    gives_direction = False
    changes_base = True

    def start(self, before: Adapter, frame: Frame = PLAIN) -> Accumulation:
        """An empty accumulation for a round that started from ``before``."""
        return ExactMeans(before, frame, Means(before, frame))
