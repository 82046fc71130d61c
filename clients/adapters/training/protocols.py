"""The interface of adapted models for importance and trainers, for one device or a cohort."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import nn

from slimfed.clients.adapter import Delta, Factors

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Kept = Mapping[tuple[str, str], np.ndarray]
"""``(module, side)`` -> rows or columns that a device has kept of it, as ``Structure.indices`` gives them."""


class AdaptedLayer(Protocol):
    """A frozen linear module W [out, in] and the change that is trained beside it; a cohort's has a leading axis."""

    @property
    def weight(self) -> torch.Tensor:
        """Frozen base weight, [out, in]; of a quantised base dequantised at every access."""
        ...

    @property
    def module(self) -> nn.Module:
        """The module, for hooks."""
        ...

    def trained(self) -> tuple[nn.Parameter, ...]:
        """The trained tensors, each [..., its own shape], in the order of the update's tensors."""
        ...

    def undecayed(self) -> tuple[nn.Parameter, ...]:
        """Those of them that weight decay spares."""
        ...

    def merged(self) -> torch.Tensor:
        """W plus its change, [..., out, in]."""
        ...

    def first_order(self, side: str) -> torch.Tensor:
        """|sum of G * merged| over each row (``side`` "out") or column ("in"), [..., out] or [..., in].

        G is the gradient of the merged weight, as far as it follows from the gradients of the trained tensors.
        """
        ...


class CohortLayer(AdaptedLayer, Protocol):
    """An adapted linear of a cohort. ``mask``, 0/1 [devices, in], zeroes a device's missing inputs."""

    mask: torch.Tensor | None

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the frozen weight."""
        ...

    def clear(self, side: str, mask: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Zero what lies in rows ("out") or columns ("in") that ``mask`` [devices, size] removes, and its moments."""
        ...

    def read(self) -> list[Factors] | list[Delta]:
        """Every device's trained tensors, in the coordinates of the unpruned module, at the cohort's largest rank."""
        ...


class Adapted(Protocol):
    """A model that carries adapters. ``lead`` is () for one device, (devices,) for a cohort."""

    @property
    def device(self) -> torch.device:
        """Torch device of the model."""
        ...

    @property
    def lead(self) -> tuple[int, ...]:
        """Leading axes of all trained tensors."""
        ...

    @property
    def model(self) -> "PreTrainedModel":
        """The model."""
        ...

    @property
    def extra(self) -> Mapping[str, nn.Parameter]:
        """Further trained tensors, by the adapter's names."""
        ...

    @property
    def layers(self) -> Mapping[str, AdaptedLayer]:
        """The adapted linears by their names in the unadapted model."""
        ...

    def parameters(self) -> list[nn.Parameter]:
        """All trained parameters: the adapter's, then the head's."""
        ...

    def undecayed(self) -> list[nn.Parameter]:
        """Those of them that weight decay spares."""
        ...

    def layer(self, name: str) -> AdaptedLayer:
        """The linear called ``name`` in the unadapted model, whether it carries an adapter or not."""
        ...
