"""Importance from the activations that flow into the modules whose inputs are cut."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import nn

from slimfed.clients.adapters.base import Adapted
from slimfed.clients.importance.base import Importance
from slimfed.clients.structure import Cut, Structure


class Activation(Importance):
    """Wanda's |W_ij| * ||x_j||_2 (arXiv 2306.11695), summed over the outputs i and over the inputs j of a unit.

    ``x`` are the inputs of the module on which the block's units are columns (attention output, FFN down projection),
    over the tokens of the last forward pass that are not padding.
    """

    needs_inputs: ClassVar[bool] = True

    def watch(self, model: Adapted, structures: Sequence[Structure], holds: Structure) -> None:
        """Hook the block outputs of the (re)built model."""
        super().watch(model, structures, holds)
        self._norms: dict[str, torch.Tensor] = {}
        cuts = [cut for block in self.blueprint.blocks for cut in block.cuts if cut.side == "in"]
        for cut in cuts:
            model.layer(cut.module).module.register_forward_pre_hook(self._keep_norm(cut.module))

    def see(self, tokens: torch.Tensor) -> None:
        """Remember which tokens count."""
        self._tokens = tokens

    def score(self) -> torch.Tensor:
        """Scores of the last forward pass."""
        with torch.no_grad():
            return self.by_block(self._along, sides=("in",))

    def _along(self, cut: Cut) -> torch.Tensor:
        return self.model.layer(cut.module).merged().abs().sum(-2) * self._norms[cut.module]

    def _keep_norm(self, name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def hook(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            x = inputs[0].detach().float() * self._tokens[..., None]
            self._norms[name] = x.reshape(*self.model.lead, -1, x.shape[-1]).square().sum(-2).sqrt()

        return hook
