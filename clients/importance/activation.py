"""Importance from the activations that flow into the modules whose inputs are cut."""

from collections.abc import Callable

import torch
from torch import nn

from slimfed.clients.adapters.lora import AdaptedModel
from slimfed.clients.importance.base import Importance, block_score, per_unit
from slimfed.clients.structure import Structure


class Activation(Importance):
    """Wanda's |W_ij| * ||x_j||_2 (arXiv 2306.11695), summed over the outputs i and over the inputs j of a unit.

    ``x`` are the inputs of the module on which the block's units are columns (attention output, FFN down projection),
    over the tokens of the last forward pass.
    """

    def watch(self, model: AdaptedModel, structure: Structure) -> None:
        """Hook the block outputs of the (re)built model."""
        super().watch(model, structure)
        self._norms: dict[str, torch.Tensor] = {}
        for block in self.blueprint.blocks:
            for cut in block.cuts:
                if cut.side == "in":
                    model.layer(cut.module).module.register_forward_pre_hook(self._keep_norm(cut.module))

    def score(self) -> torch.Tensor:
        """Scores of the last forward pass."""
        with torch.no_grad():
            blocks = []
            for block in self.blueprint.blocks:
                parts = []
                for cut in block.cuts:
                    if cut.side == "in":
                        layer = self.model.layer(cut.module)
                        merged = layer.weight + layer.scaling * layer.b @ layer.a
                        parts.append(per_unit(merged.abs().sum(0) * self._norms[cut.module], cut))
                blocks.append(block_score(parts))
            return torch.cat(blocks)

    def _keep_norm(self, name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def hook(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            x = inputs[0].detach().float()
            self._norms[name] = x.reshape(-1, x.shape[-1]).square().sum(0).sqrt()

        return hook
