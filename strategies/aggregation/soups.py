"""Sparse model soups: the members of one shared mask, averaged."""

from slimfed.clients.adapter import Adapter
from slimfed.strategies.aggregation.base import PLAIN, Accumulation, Aggregator, Frame
from slimfed.strategies.aggregation.fedavg import EqualMeans


class Soups(Aggregator):
    """Sparse Model Soups (Zimmer et al., arXiv 2306.16788): a round is one phase, the devices are its ingredients.

    All members retrain the same pruned model and are averaged uniformly, whatever their examples; only so does the
    average keep the mask. The server decides it (``pruning.structure = "shared"``): masks are never averaged.
    """

    def start(self, before: Adapter, frame: Frame = PLAIN) -> Accumulation:
        """Begin a round."""
        return EqualMeans(before, "soups", weigh=lambda update: 1)
