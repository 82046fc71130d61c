"""What importance and the trainers see of adapted linears, whoever holds them: one device's model or a cohort's."""

from typing import Protocol

import torch
from torch import nn


class AdaptedLayer(Protocol):
    """y = W x + scaling * B (A x): W [out, in], A [..., r, in], B [..., out, r], with a leading axis for a cohort."""

    @property
    def weight(self) -> torch.Tensor:
        """Frozen base weight, [out, in]."""
        ...

    @property
    def a(self) -> nn.Parameter:
        """Factor A, [..., r, in]."""
        ...

    @property
    def b(self) -> nn.Parameter:
        """Factor B, [..., out, r]."""
        ...

    @property
    def scaling(self) -> float:
        """alpha / r, the same for every rank."""
        ...

    @property
    def module(self) -> nn.Module:
        """The module itself, to hook."""
        ...


class Adapted(Protocol):
    """A model that carries adapters. ``lead`` is () for one device, (devices,) for a cohort."""

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        ...

    @property
    def lead(self) -> tuple[int, ...]:
        """Leading axes of all that is trained."""
        ...

    def layer(self, name: str) -> AdaptedLayer:
        """The adapted linear called ``name`` in the unadapted model."""
        ...


def gradient(parameter: nn.Parameter) -> torch.Tensor:
    """Gradient of the last backward pass; zeros if there was none."""
    return parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
