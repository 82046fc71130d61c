"""The interface of an importance criterion.

Torch is imported only for computing, so that listing criteria is quick.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from slimfed.clients.registry import Registry
from slimfed.clients.structure import Blueprint, Cut, Structure

if TYPE_CHECKING:
    import torch

    from slimfed.clients.adapters.training.protocols import Adapted


class Importance(ABC):
    """Scores the units of one device's model, or of a cohort's.

    A new criterion is one file here, whose class is registered with :data:`IMPORTANCE`, or an entry point
    ``slimfed.importances`` of another package.

    The trainer builds one object a round, calls :meth:`watch` whenever the model has been (re)built, and :meth:`score`
    after every backward pass, before the optimiser's step. ``seeds`` has one seed for every device.
    """

    needs_data: ClassVar[bool] = True
    """False if scores depend on weights alone, so that the server can score its base before training."""

    independent_of_text: ClassVar[bool] = False
    """True if scores do not depend on a device's text, nor on weights trained on it; required by privacy."""

    needs_adapters: ClassVar[bool] = False
    """True if units are scored by the adapters on their modules, so that every block needs one."""

    needs_inputs: ClassVar[bool] = False
    """True if the inputs of modules are needed for every token."""

    def __init__(self, blueprint: Blueprint, seeds: Sequence[int]) -> None:
        self.blueprint = blueprint
        self.seeds = tuple(seeds)

    def watch(self, model: "Adapted", structures: Sequence[Structure], holds: Structure) -> None:
        """Set the model to score, sliced to ``holds``, and the structure of each of its devices."""
        import torch

        self.model = model
        units = np.flatnonzero(holds.keep)
        self.units = torch.from_numpy(units).to(model.device)
        self.keep = torch.ones(*model.lead, len(units), dtype=torch.bool, device=model.device)
        self.restrict(structures)

    def restrict(self, structures: Sequence[Structure]) -> None:
        """Set the structures of the watched devices after pruning without a new model."""
        import torch

        keep = torch.from_numpy(np.stack([structure.keep for structure in structures])).to(self.model.device)
        self.keep.copy_(keep[:, self.units].reshape(*self.model.lead, -1))

    def see(self, tokens: "torch.Tensor") -> None:  # noqa: B027 - most criteria do not care
        """Called before every forward pass with the mask of tokens, 0/1 [rows, length]; for criteria of activations."""

    @abstractmethod
    def score(self) -> "torch.Tensor":
        """Scores of this step, float32 [*model.lead, len(units)] in the order of ``units``; larger means keep."""

    def by_block(
        self, along: "Callable[[Cut], torch.Tensor]", counts: "Callable[[Cut], bool]" = lambda _cut: True
    ) -> "torch.Tensor":
        """Score all blocks from ``along(cut)``, scores >= 0 of the rows or columns on a cut's side: [..., len(units)].

        ``counts`` says which cuts count. Each module's vector is divided by its own L2 norm before the modules of a
        block are added, so that modules have equal weight (LoRAPrune); removed units are left out. No gradient is kept.
        """
        import torch

        scores, start = [], 0
        with torch.no_grad():
            for block in self.blueprint.blocks:
                parts = [per_unit(along(cut), cut) for cut in block.cuts if counts(cut)]
                keep = self.keep[..., start : start + parts[0].shape[-1]]
                start += parts[0].shape[-1]
                parts = [torch.where(keep, part, 0.0) for part in parts]
                scores.append(torch.stack([part / (part.norm(dim=-1, keepdim=True) + 1e-8) for part in parts]).sum(0))
            return torch.cat(scores, dim=-1)


def per_unit(vector: "torch.Tensor", cut: Cut) -> "torch.Tensor":
    """Sum over a sliced module's cut side by unit: [..., len(starts) * kept * width] -> [..., kept]."""
    return vector.unflatten(-1, (len(cut.starts), -1, cut.width)).sum(dim=(-3, -1))


IMPORTANCE: Registry[type[Importance]] = Registry(
    "method.importance",
    "slimfed.importances",
    Importance,
    package="slimfed.clients.importance",
    helpers=("smoothing", "seen_inputs", "of_inputs"),
    classes=True,
)
