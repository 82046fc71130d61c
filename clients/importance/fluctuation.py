"""Importance as how much a unit's output varies: what hardly varies could as well be a constant."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from slimfed.clients.importance.base import IMPORTANCE, Importance
from slimfed.clients.structure import Blueprint, Cut, Structure

if TYPE_CHECKING:
    import torch

    from slimfed.clients.adapters.training.protocols import Adapted


@IMPORTANCE.register("fluctuation")
class Fluctuation(Importance):
    """Variance of the inputs over tokens times the squared norm of their columns, summed by unit (FLAP, 2312.11983).

    Of the module on which the block's units are columns. Only the score: the mean of a removed unit's output, which the
    paper adds to a bias, is not made good here; training after it is to do that.
    """

    needs_inputs: ClassVar[bool] = True

    def __init__(self, blueprint: Blueprint, seeds: Sequence[int]) -> None:
        from slimfed.clients.importance.seen_inputs import SeenInputs, variances  # not above: see base.py

        super().__init__(blueprint, seeds)
        self._seen = SeenInputs(variances)

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
        return self.model.layer(cut.module).merged().square().sum(-2) * self._seen.of[cut.module]
