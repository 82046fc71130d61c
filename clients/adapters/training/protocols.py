"""What importance and the trainers see of an adapter: in one device's model or in a cohort's."""

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
        """Frozen base weight, [out, in]."""
        ...

    @property
    def module(self) -> nn.Module:
        """The module itself, to hook."""
        ...

    def trained(self) -> tuple[nn.Parameter, ...]:
        """What is trained here, each [..., its own shape], in the order of the update's tensors."""
        ...

    def undecayed(self) -> tuple[nn.Parameter, ...]:
        """Those of them that weight decay spares."""
        ...

    def merged(self) -> torch.Tensor:
        """W with the change in it, [..., out, in]."""
        ...

    def first_order(self, side: str) -> torch.Tensor:
        """|sum of G * merged| over each row (``side`` "out") or column ("in"), [..., out] or [..., in].

        G is the gradient of the merged weight as far as the gradients of what is trained tell it.
        """
        ...


class CohortLayer(AdaptedLayer, Protocol):
    """An adapted linear of a cohort. ``mask``, 0/1 [devices, in], zeroes the inputs that a device has not."""

    mask: torch.Tensor | None

    def clear(self, side: str, mask: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Zero what lies in rows ("out") or columns ("in") that ``mask`` [devices, size] removes, and its moments."""
        ...

    def read(self) -> list[Factors] | list[Delta]:
        """What every device has learnt, in the coordinates of the unpruned module and at the cohort's largest rank."""
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

    @property
    def model(self) -> "PreTrainedModel":
        """The model itself."""
        ...

    @property
    def extra(self) -> Mapping[str, nn.Parameter]:
        """Further tensors that are trained, by the adapter's own names."""
        ...

    @property
    def layers(self) -> Mapping[str, AdaptedLayer]:
        """The adapted linears by their names in the unadapted model."""
        ...

    def parameters(self) -> list[nn.Parameter]:
        """All that is trained: the adapter, then the head."""
        ...

    def undecayed(self) -> list[nn.Parameter]:
        """Those of them that weight decay spares."""
        ...

    def layer(self, name: str) -> AdaptedLayer:
        """The adapted linear called ``name`` in the unadapted model."""
        ...
