"""A mean in which large devices count less than they would by their examples."""

import math

from slimfed.clients.adapter import Adapter
from slimfed.clients.update import Update
from slimfed.strategies.aggregation import PLAIN, Accumulation, Aggregator, Frame
from slimfed.strategies.aggregation.means import Means


class LogExamples(Aggregator):
    """The mean of factors over the owners of a coordinate, weighted by the logarithm of their examples."""

    sums_updates = True

    def start(self, before: Adapter, frame: Frame = PLAIN) -> Accumulation:
        """Begin a round. Sums are exact, so weights are whole numbers: here thousandths."""
        return Means(before, frame, weigh=_weight)


def _weight(update: Update) -> int:
    return max(1, round(1000 * math.log1p(update.report.examples)))
