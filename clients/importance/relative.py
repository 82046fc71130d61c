"""Importance from activations and from each weight's part in its output's row."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from slimfed.clients.importance.base import IMPORTANCE, Importance
from slimfed.clients.structure import Blueprint, Cut, Structure

if TYPE_CHECKING:
    import torch

    from slimfed.clients.adapters.training.protocols import Adapted


@IMPORTANCE.register("relative")
class Relative(Importance):
    """Norm of an input times the weights' parts in their rows, summed over the outputs (CFSP, arXiv 2409.13199).

    ||x_j||_2 * sum over outputs o of |W_oj| / sum over j' of |W_oj'|, with W [o, i] the module on which the block's
    units are columns, summed over the inputs j of a unit. So no output weighs more for having large weights. The
    release divides by the column's own sum instead, which leaves the norm of x alone [code wyxscir/CFSP]. Heads are
    scored in the same way (ours).
    """

    needs_inputs: ClassVar[bool] = True

    def __init__(self, blueprint: Blueprint, seeds: Sequence[int]) -> None:
        from slimfed.clients.importance.seen_inputs import SeenInputs, norms  # not above: see base.py

        super().__init__(blueprint, seeds)
        self._seen = SeenInputs(norms)
        self._places: dict[str, slice] = {}

    def watch(self, model: "Adapted", structures: Sequence[Structure], holds: Structure) -> None:
        """Hook the block outputs of the (re)built model."""
        super().watch(model, structures, holds)
        self._seen.watch(model, self.blueprint)
        start = 0
        for index, block in enumerate(self.blueprint.blocks):
            stop = start + len(holds.kept(index))
            self._places |= {cut.module: slice(start, stop) for cut in block.cuts if cut.side == "in"}
            start = stop

    def see(self, tokens: "torch.Tensor") -> None:
        """Store the mask of counted tokens."""
        self._seen.tokens = tokens

    def score(self) -> "torch.Tensor":
        """Scores of the last forward pass."""
        return self.by_block(self._along, counts=lambda cut: cut.side == "in")

    def _along(self, cut: Cut) -> "torch.Tensor":
        kept = self.keep[..., self._places[cut.module]].repeat_interleave(cut.width, dim=-1)
        weights = self.model.layer(cut.module).merged().abs() * kept.unsqueeze(-2)
        parts = weights / weights.sum(-1, keepdim=True).clamp_min(1e-30)
        return parts.sum(-2) * self._seen.of[cut.module]
