"""What an importance criterion is, and the moving average that smooths it."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch

from slimfed.clients.adapters.lora import AdaptedModel
from slimfed.clients.structure import Blueprint, Cut, Structure


class Importance(ABC):
    """Scores the units of one device's model. A new criterion is one file and one line in the registry.

    The trainer builds one object per device and round, calls :meth:`watch` whenever the model has been (re)built for a
    structure, and :meth:`score` after every backward pass, before the optimiser moves.
    """

    def __init__(self, blueprint: Blueprint, seed: int) -> None:
        self.blueprint = blueprint
        self.seed = seed

    def watch(self, model: AdaptedModel, structure: Structure) -> None:
        """The model that will be scored from now on; ``structure`` says which units it still has."""
        self.model = model
        self.structure = structure
        self.kept = torch.from_numpy(np.flatnonzero(structure.keep)).to(model.device)

    @abstractmethod
    def score(self) -> torch.Tensor:
        """Scores of this step, float32 [kept units] in the order of the structure; larger means keep."""


def per_unit(vector: torch.Tensor, cut: Cut) -> torch.Tensor:
    """Sum a vector over a sliced module's cut side by unit: [len(starts) * kept * width] -> [kept]."""
    return vector.reshape(len(cut.starts), -1, cut.width).sum(dim=(0, 2))


def block_score(parts: list[torch.Tensor]) -> torch.Tensor:
    """Join the modules of one block: each divided by its own L2 norm, so that no module drowns another (LoRAPrune)."""
    return torch.stack([part / (part.norm() + 1e-8) for part in parts]).sum(0)


def by_block(blueprint: Blueprint, along: Callable[[Cut], torch.Tensor]) -> torch.Tensor:
    """Score all blocks from ``along(cut)``, scores >= 0 of each row or column on the cut's side: [kept units]."""
    return torch.cat([block_score([per_unit(along(cut), cut) for cut in block.cuts]) for block in blueprint.blocks])


class SmoothedScores:
    """Exponential moving average of scores over a device's local steps (LoRAPrune: S <- 0.9 S + 0.1 S_t).

    The average is divided by the weight it has gathered, so that few steps are not biased towards zero. A step with
    any non-finite score is skipped.
    """

    def __init__(self, blueprint: Blueprint, smoothing: float, device: torch.device) -> None:
        self.smoothing = smoothing
        self._sum = torch.zeros(blueprint.units, device=device)
        self._weight = torch.zeros((), device=device)

    def add(self, kept: torch.Tensor, scores: torch.Tensor) -> None:
        """Take in one step's ``scores`` of the ``kept`` unit indices, without waiting for the processor."""
        usable = torch.isfinite(scores).all()
        decay = torch.where(usable, self.smoothing, 1.0)
        fresh = torch.where(usable, scores.float() * (1.0 - self.smoothing), torch.zeros_like(scores))
        self._sum = (self._sum * decay).index_add(0, kept, fresh)
        self._weight = self._weight * decay + torch.where(usable, 1.0 - self.smoothing, 0.0)

    def value(self, structure: Structure) -> np.ndarray:
        """The average now, float32 [units], 0 where ``structure`` has removed the unit."""
        average = (self._sum / self._weight.clamp_min(1e-12)).cpu().numpy()
        return np.where(structure.keep, average, np.float32(0.0)).astype(np.float32)
