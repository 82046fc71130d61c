"""What the last forward pass sent into the modules whose inputs are cut, for criteria of activations."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn

from slimfed.clients.adapters.training.protocols import Adapted
from slimfed.clients.structure import Blueprint, Cut

Reduce = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From inputs [*lead, tokens, in] and the mask of counted tokens, 0/1 [*lead, tokens, 1], to a number of each input."""


@dataclass
class SeenInputs:
    """State of a model's hooks, without the model, since a reference cycle would keep all tensors alive.

    ``tokens``: which tokens of the next pass count, 0/1 [rows, length]. ``of``: what ``reduce`` made of the inputs of
    each module in the last pass, [*lead, in].
    """

    reduce: Reduce
    lead: tuple[int, ...] = ()
    tokens: torch.Tensor | None = None
    of: dict[str, torch.Tensor] = field(default_factory=dict)

    def watch(self, model: Adapted, blueprint: Blueprint) -> None:
        """Hook the outputs of the blocks of a (re)built model."""
        self.lead = model.lead
        for cut in input_cuts(blueprint):
            model.layer(cut.module).module.register_forward_pre_hook(partial(self._note, cut.module))

    def _note(self, name: str, _module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert self.tokens is not None, "what counts is said before the forward pass"
        x = inputs[0].detach().float() * self.tokens[..., None]
        mask = self.tokens.reshape(*self.lead, -1, 1)
        self.of[name] = self.reduce(x.reshape(*self.lead, -1, x.shape[-1]), mask)


def input_cuts(blueprint: Blueprint) -> list[Cut]:
    """The cut of every block on which its units are columns."""
    return [next(cut for cut in block.cuts if cut.side == "in") for block in blueprint.blocks]


def _norms(x: torch.Tensor, _mask: torch.Tensor) -> torch.Tensor:
    """L2 norm of each input over the tokens; ``x`` is 0 where tokens do not count."""
    return x.square().sum(-2).sqrt()


def _variances(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Variance of each input over the counted tokens."""
    count = mask.sum(-2).clamp_min(1)
    centred = (x - (x.sum(-2) / count).unsqueeze(-2)) * mask
    return centred.square().sum(-2) / count


REDUCTIONS: dict[str, Reduce] = {"norm": _norms, "variance": _variances}
"""By the criteria's ``reduction``."""
