"""Sparse model soups: the models of one shared mask, averaged."""

from slimfed.clients.adapter import Adapter
from slimfed.strategies.aggregation.base import AGGREGATIONS, PLAIN, Accumulation, Aggregator, Frame
from slimfed.strategies.aggregation.exact import ExactMeans
from slimfed.strategies.aggregation.fedavg import EqualMeans


@AGGREGATIONS.register("soups")
class Soups(Aggregator):
    """The mean of the devices' merged weights, equally weighted; all devices must share one structure.

    Sparse Model Soups (Zimmer et al., arXiv 2306.16788): a round is one phase, and the devices' models are the
    ingredients.

    All members retrain the same pruned model and are averaged uniformly, so that the average keeps the mask. The server
    chooses the mask (``pruning.structure = "shared"``): masks are never averaged. A mean of factors is no mean of
    models, so what it lacks is merged into the base, as FedEx-LoRA does. The mean of sparse deltas is exact as it is.
    """

    needs_equal_structures = True
    needs_equal_ranks = True
    gives_direction = False
    changes_base = True

    def start(self, before: Adapter, frame: Frame = PLAIN) -> Accumulation:
        """An empty accumulation for a round that started from ``before``."""
        means = EqualMeans(before, frame, "soups", weigh=lambda update: 1)
        return ExactMeans(before, frame, means, weigh=lambda update: 1) if before.factors else means
