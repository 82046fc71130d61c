"""Importance from the activations that flow into the modules whose inputs are cut."""

from typing import TYPE_CHECKING

from slimfed.clients.importance.base import IMPORTANCE
from slimfed.clients.importance.of_inputs import OfInputs
from slimfed.clients.structure import Cut

if TYPE_CHECKING:
    import torch


@IMPORTANCE.register("activation")
class Activation(OfInputs):
    """Wanda's |W_ij| * ||x_j||_2 (arXiv 2306.11695), summed over the outputs i and over the inputs j of a unit.

    ``x`` are the inputs of the module on which the block's units are columns (attention output, FFN down projection),
    over the tokens of the last forward pass that are not padding.
    """

    reduction = "norm"

    def _along(self, cut: Cut) -> "torch.Tensor":
        return self.model.layer(cut.module).merged().abs().sum(-2) * self._seen.of[cut.module]
