"""First-order importance from the gradients of the LoRA factors alone: no gradient of the frozen weight is needed."""

from typing import TYPE_CHECKING

from slimfed.clients.importance.base import IMPORTANCE, Importance
from slimfed.clients.structure import Cut

if TYPE_CHECKING:
    import torch


@IMPORTANCE.register("lora-gradient")
class LoraGradient(Importance):
    """The weight's gradient G from the adapter's gradients (LoRAPrune, arXiv 2305.18403), summed by unit.

    The score of a row is |sum_j G_ij W'_ij| with W' the adapted weight: the first-order change of the loss when the row
    goes. For LoRA, G is gB A + B gA (:func:`slimfed.clients.adapters.training.lora_math.first_order`).
    """

    needs_adapters = True

    def score(self) -> "torch.Tensor":
        """Scores of the step whose gradients are on the factors."""
        return self.by_block(self._along, counts=lambda cut: cut.module in self.model.layers)

    def _along(self, cut: Cut) -> "torch.Tensor":
        return self.model.layer(cut.module).first_order(cut.side)
