"""Importance from the activations that flow into the modules whose inputs are cut."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from slimfed.clients.importance.base import IMPORTANCE, Importance
from slimfed.clients.structure import Blueprint, Cut, Structure

if TYPE_CHECKING:
    import torch

    from slimfed.clients.adapters.training.protocols import Adapted


@IMPORTANCE.register("activation")
class Activation(Importance):
    """Wanda's |W_ij| * ||x_j||_2 (arXiv 2306.11695), summed over the outputs i and over the inputs j of a unit.

    ``x`` are the inputs of the module on which the block's units are columns (attention output, FFN down projection),
    over the tokens of the last forward pass that are not padding.
    """

    needs_inputs: ClassVar[bool] = True

    def __init__(self, blueprint: Blueprint, seeds: Sequence[int]) -> None:
        from slimfed.clients.importance.seen_inputs import SeenInputs, norms  # not above: see base.py

        super().__init__(blueprint, seeds)
        self._seen = SeenInputs(norms)

    def watch(self, model: "Adapted", structures: Sequence[Structure], holds: Structure) -> None:
        """Hook the block outputs of the (re)built model."""
        super().watch(model, structures, holds)
        self._seen.watch(model, self.blueprint)

    def see(self, tokens: "torch.Tensor") -> None:
        """Store the mask of counted tokens."""
        self._seen.tokens = tokens

    def score(self) -> "torch.Tensor":
        """Scores of the last forward pass."""
        return self.by_block(self._along, counts=lambda cut: cut.side == "in")

    def _along(self, cut: Cut) -> "torch.Tensor":
        return self.model.layer(cut.module).merged().abs().sum(-2) * self._seen.of[cut.module]
