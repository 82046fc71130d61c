"""Importance from the activations that flow into the modules whose inputs are cut."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from slimfed.clients.importance.base import IMPORTANCE, Importance
from slimfed.clients.structure import Blueprint, Cut, Structure

if TYPE_CHECKING:
    import torch
    from torch import nn

    from slimfed.clients.adapters.training.protocols import Adapted


@IMPORTANCE.register("activation")
class Activation(Importance):
    """Wanda's |W_ij| * ||x_j||_2 (arXiv 2306.11695), summed over the outputs i and over the inputs j of a unit.

    ``x`` are the inputs of the module on which the block's units are columns (attention output, FFN down projection),
    over the tokens of the last forward pass that are not padding.
    """

    needs_inputs: ClassVar[bool] = True

    def __init__(self, blueprint: Blueprint, seeds: Sequence[int]) -> None:
        super().__init__(blueprint, seeds)
        self._seen = _Seen()

    def watch(self, model: "Adapted", structures: Sequence[Structure], holds: Structure) -> None:
        """Hook the block outputs of the (re)built model."""
        super().watch(model, structures, holds)
        self._seen.lead = model.lead
        cuts = [cut for block in self.blueprint.blocks for cut in block.cuts if cut.side == "in"]
        for cut in cuts:
            model.layer(cut.module).module.register_forward_pre_hook(partial(self._seen.note, cut.module))

    def see(self, tokens: "torch.Tensor") -> None:
        """Store the mask of counted tokens."""
        self._seen.tokens = tokens

    def score(self) -> "torch.Tensor":
        """Scores of the last forward pass."""
        return self.by_block(self._along, counts=lambda cut: cut.side == "in")

    def _along(self, cut: Cut) -> "torch.Tensor":
        return self.model.layer(cut.module).merged().abs().sum(-2) * self._seen.norms[cut.module]


@dataclass
class _Seen:
    """State of a model's hooks, without the model, since a reference cycle would keep all tensors alive."""

    lead: tuple[int, ...] = ()
    tokens: "torch.Tensor | None" = None
    norms: "dict[str, torch.Tensor]" = field(default_factory=dict)

    def note(self, name: str, _module: "nn.Module", inputs: "tuple[torch.Tensor, ...]") -> None:
        """Store the norms of the inputs of module ``name``."""
        assert self.tokens is not None, "what counts is said before the forward pass"
        x = inputs[0].detach().float() * self.tokens[..., None]
        self.norms[name] = x.reshape(*self.lead, -1, x.shape[-1]).square().sum(-2).sqrt()
