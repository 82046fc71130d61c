"""Importance as how much a unit's output varies: what hardly varies could as well be a constant."""

from typing import TYPE_CHECKING

from slimfed.clients.importance.base import IMPORTANCE
from slimfed.clients.importance.of_inputs import OfInputs
from slimfed.clients.structure import Cut

if TYPE_CHECKING:
    import torch


@IMPORTANCE.register("fluctuation")
class Fluctuation(OfInputs):
    """Variance of the inputs over tokens times the squared norm of their columns, summed by unit (FLAP, 2312.11983).

    Of the module on which the block's units are columns. Only the score: the mean of a removed unit's output, which the
    paper adds to a bias, is not made good here; training after it is to do that.
    """

    reduction = "variance"

    def _along(self, cut: Cut) -> "torch.Tensor":
        return self.model.layer(cut.module).merged().square().sum(-2) * self._seen.of[cut.module]
