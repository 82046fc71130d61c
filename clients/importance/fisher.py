"""Importance of a unit as the Fisher information of its mask: what the loss says of leaving the whole unit out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from slimfed.clients.importance.base import IMPORTANCE, Importance, per_unit
from slimfed.clients.structure import Blueprint, Cut, Structure

if TYPE_CHECKING:
    import torch
    from torch import nn

    from slimfed.clients.adapters.training.protocols import Adapted


@IMPORTANCE.register("fisher")
class Fisher(Importance):
    """The sum over texts of (dL/dm)^2, with m = 1 the mask of a unit (Kwon et al., arXiv 2204.09656, equation 9).

    With x the unit's part of the input of the module on which the block's units are columns (attention output, FFN down
    projection), dL/dm is the sum over tokens and over the unit's inputs of x * dL/dx. No gradient of the frozen weights
    is needed. Scores are losses, so they compare over layers too (``pruning.scope = "global"``).
    """

    needs_inputs: ClassVar[bool] = True

    def __init__(self, blueprint: Blueprint, seeds: Sequence[int]) -> None:
        super().__init__(blueprint, seeds)
        self._masks = _MaskGradients()

    def watch(self, model: "Adapted", structures: Sequence[Structure], holds: Structure) -> None:
        """Hook the block outputs of the (re)built model."""
        super().watch(model, structures, holds)
        self._masks.lead = model.lead
        for cut in self._cuts():
            model.layer(cut.module).module.register_forward_pre_hook(partial(self._masks.follow, cut))

    def score(self) -> "torch.Tensor":
        """Scores of the last step's batch."""
        import torch

        squares = [self._masks.of[cut.module].square().sum(-2) for cut in self._cuts()]
        return torch.where(self.keep, torch.cat(squares, dim=-1), 0.0)

    def _cuts(self) -> list[Cut]:
        """The cut of every block on which its units are columns."""
        return [next(cut for cut in block.cuts if cut.side == "in") for block in self.blueprint.blocks]


@dataclass
class _MaskGradients:
    """State of a model's hooks, without the model, since a reference cycle would keep all tensors alive."""

    lead: tuple[int, ...] = ()
    of: "dict[str, torch.Tensor]" = field(default_factory=dict)

    def follow(self, cut: Cut, _module: "nn.Module", inputs: "tuple[torch.Tensor, ...]") -> None:
        """Ask for the gradient of the input of the module on ``cut``."""
        x = inputs[0]
        if x.requires_grad:
            x.register_hook(partial(self._note, cut, x.detach()))

    def _note(self, cut: Cut, x: "torch.Tensor", gradient: "torch.Tensor") -> None:
        """Store the gradients of the masks, [*lead, texts, units]."""
        by_text = (x.float() * gradient.float()).sum(-2)
        self.of[cut.module] = per_unit(by_text.reshape(*self.lead, -1, by_text.shape[-1]), cut)
