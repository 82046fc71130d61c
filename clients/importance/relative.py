"""Importance from activations and from each weight's part in its output's row."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from slimfed.clients.importance.base import IMPORTANCE
from slimfed.clients.importance.of_inputs import OfInputs
from slimfed.clients.structure import Cut, Structure

if TYPE_CHECKING:
    import torch

    from slimfed.clients.adapters.training.protocols import Adapted


@IMPORTANCE.register("relative")
class Relative(OfInputs):
    """Norm of an input times the weights' parts in their rows, summed over the outputs (CFSP, arXiv 2409.13199).

    ||x_j||_2 * sum over outputs o of |W_oj| / sum over j' of |W_oj'|, with W [o, i] the module on which the block's
    units are columns, summed over the inputs j of a unit. So no output weighs more for having large weights. The
    release divides by the column's own sum instead, which leaves the norm of x alone [code wyxscir/CFSP]. Heads are
    scored in the same way (ours).
    """

    reduction = "norm"

    def watch(self, model: "Adapted", structures: Sequence[Structure], holds: Structure) -> None:
        """Hook the block outputs of the (re)built model, and note which units belong to which."""
        super().watch(model, structures, holds)
        self._places: dict[str, slice] = {}
        start = 0
        for index, block in enumerate(self.blueprint.blocks):
            stop = start + len(holds.kept(index))
            self._places |= {cut.module: slice(start, stop) for cut in block.cuts if cut.side == "in"}
            start = stop

    def _along(self, cut: Cut) -> "torch.Tensor":
        kept = self.keep[..., self._places[cut.module]].repeat_interleave(cut.width, dim=-1)
        weights = self.model.layer(cut.module).merged().abs() * kept.unsqueeze(-2)
        parts = weights / weights.sum(-1, keepdim=True).clamp_min(1e-30)
        return parts.sum(-2) * self._seen.of[cut.module]
