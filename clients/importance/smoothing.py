"""The moving average over a round's steps that smooths the scores of any criterion."""

import numpy as np
import torch

from slimfed.clients.structure import Blueprint


class SmoothedScores:
    """Exponential moving average of scores over the local steps (LoRAPrune: S <- 0.9 S + 0.1 S_t), for each device.

    The average is divided by the weight it has gathered, so that few steps are not biased towards zero. A device's step
    with any non-finite score is skipped. Only :meth:`value` waits for the GPU.
    """

    def __init__(self, blueprint: Blueprint, smoothing: float, lead: tuple[int, ...], device: torch.device) -> None:
        self.smoothing = smoothing
        self._sum = torch.zeros(*lead, blueprint.units, device=device)
        self._weight = torch.zeros(*lead, 1, device=device)

    def add(self, units: torch.Tensor, scores: torch.Tensor) -> None:
        """Add one step's ``scores`` [*lead, len(units)]."""
        usable = torch.isfinite(scores).all(dim=-1, keepdim=True)
        decay = torch.where(usable, self.smoothing, 1.0)
        fresh = torch.where(usable, scores.float() * (1.0 - self.smoothing), 0.0)
        self._sum.mul_(decay).index_add_(-1, units, fresh)
        self._weight.mul_(decay).add_(torch.where(usable, 1.0 - self.smoothing, 0.0))

    def value(self) -> np.ndarray:
        """The averages now, float32 [*lead, units]."""
        return (self._sum / self._weight.clamp_min(1e-12)).cpu().numpy()
