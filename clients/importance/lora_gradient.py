"""First-order importance from the gradients of the LoRA factors alone: no gradient of the frozen weight is needed."""

import torch

from slimfed.clients.adapters.base import gradient
from slimfed.clients.importance.base import Importance
from slimfed.clients.structure import Cut


class LoraGradient(Importance):
    """LoRAPrune's surrogate G = gB A + B gA of the weight's gradient (arXiv 2305.18403), summed row- or column-wise.

    The score of a row is |sum_j G_ij W'_ij| with W' = W + s B A, the first-order change of the loss when the row goes.
    It is computed without the o x i matrix G (algorithms 2.2), in O((o + i) r) memory. The second-order term gB gA of
    the paper mixes units with the learning rate and is left out.
    """

    def score(self) -> torch.Tensor:
        """Scores of the step whose gradients are on the factors."""
        with torch.no_grad():
            return self.by_block(self._along)

    def _along(self, cut: Cut) -> torch.Tensor:
        layer = self.model.layer(cut.module)
        weight, a, b = layer.weight, layer.a, layer.b
        grad_a, grad_b = gradient(a), gradient(b)
        if cut.side == "out":
            through = [weight @ f.mT + layer.scaling * (b @ (a @ f.mT)) for f in (a, grad_a)]
            return ((grad_b * through[0]).sum(-1) + (b * through[1]).sum(-1)).abs()
        through = [f.mT @ weight + layer.scaling * ((f.mT @ b) @ a) for f in (grad_b, b)]
        return ((a * through[0]).sum(-2) + (grad_a * through[1]).sum(-2)).abs()
