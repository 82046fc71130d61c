"""One device's model with an adapter: the trained parameters, and the adapter of an update."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from slimfed.clients.adapter import Adapter, Delta, Factors
from slimfed.clients.adapters.training.protocols import AdaptedLayer
from slimfed.clients.models.linear import place_of, shape_of, weight_of
from slimfed.clients.models.tensors import to_array

Read = Callable[[nn.Parameter], torch.Tensor]


class DeviceLayer(AdaptedLayer, Protocol):
    """An adapted linear of one device's model."""

    def read(self, of: Read) -> Factors | Delta:
        """A copy of ``of(parameter)`` for each trained parameter."""
        ...


@dataclass(frozen=True)
class BareLayer:
    """A linear without adapter, as importance sees it."""

    module: nn.Module

    @property
    def weight(self) -> torch.Tensor:
        """Frozen weight [out, in]."""
        return weight_of(self.module)

    def trained(self) -> tuple[nn.Parameter, ...]:
        """Nothing."""
        return ()

    def undecayed(self) -> tuple[nn.Parameter, ...]:
        """Nothing."""
        return ()

    def merged(self) -> torch.Tensor:
        """The weight."""
        return self.weight

    def first_order(self, side: str) -> torch.Tensor:
        """0: its gradient is not known."""
        device, dtype = place_of(self.module)
        return torch.zeros(shape_of(self.module)[0 if side == "out" else 1], dtype=dtype, device=device)


@dataclass(frozen=True)
class AdaptedModel:
    """A (sliced) model that carries an adapter."""

    model: PreTrainedModel
    layers: dict[str, DeviceLayer]
    head: dict[str, nn.Parameter]
    extra: dict[str, nn.Parameter] = field(default_factory=dict)
    spares: Callable[[str], bool] = lambda _name: False

    @property
    def device(self) -> torch.device:
        """Torch device of the model."""
        return self.model.device

    @property
    def lead(self) -> tuple[int, ...]:
        """(), as there is one device."""
        return ()

    def layer(self, name: str) -> AdaptedLayer:
        """The linear called ``name`` in the unadapted model, whether it carries an adapter or not."""
        return self.layers[name] if name in self.layers else BareLayer(self.model.get_submodule(name))

    def adapter_parameters(self) -> list[nn.Parameter]:
        """The trained parameters of the adapter, in module order."""
        return [p for layer in self.layers.values() for p in layer.trained()] + list(self.extra.values())

    def undecayed(self) -> list[nn.Parameter]:
        """Parameters without weight decay."""
        spared = [p for layer in self.layers.values() for p in layer.undecayed()]
        return spared + [p for name, p in self.extra.items() if self.spares(name)]

    def parameters(self) -> list[nn.Parameter]:
        """All trained parameters: the adapter's, then the head's."""
        return self.adapter_parameters() + list(self.head.values())

    def read(self, of: Read = torch.Tensor.detach) -> Adapter:
        """The trained adapter as float32 arrays, or ``of(parameter)`` in place of each parameter."""
        parts = {name: layer.read(of) for name, layer in self.layers.items()}
        extra, head = ({name: to_array(of(p)) for name, p in part.items()} for part in (self.extra, self.head))
        return assembled(parts, extra, head)


def assembled(
    parts: Mapping[str, Factors | Delta], extra: dict[str, np.ndarray], head: dict[str, np.ndarray]
) -> Adapter:
    """An adapter made of the factors of modules, extra tensors and head."""
    factors = {name: part for name, part in parts.items() if isinstance(part, Factors)}
    deltas = {name: part for name, part in parts.items() if isinstance(part, Delta)}
    return Adapter(factors, head, deltas=deltas, extra=extra)


def attach_head(model: PreTrainedModel, head: dict[str, np.ndarray]) -> dict[str, nn.Parameter]:
    """Replace the head's parameters by trainable copies, so that a shared base is unchanged."""
    return {name: _replace(model, name, value) for name, value in head.items()}


def head_state(model: PreTrainedModel, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The named parameters as float32 arrays: the head an untrained model starts from."""
    return {name: to_array(model.get_parameter(name)) for name in names}


def fill(parameter: nn.Parameter, value: np.ndarray, name: str) -> None:
    """Write ``value`` into ``parameter``. Raises ``ValueError`` if it does not fit."""
    if tuple(parameter.shape) != value.shape:
        raise ValueError(f"{name}: shape {list(value.shape)} does not fit the module's {list(parameter.shape)}")
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(value))


def _replace(model: PreTrainedModel, name: str, value: np.ndarray) -> nn.Parameter:
    parent, _, leaf = name.rpartition(".")
    old = model.get_parameter(name)
    fresh = nn.Parameter(torch.empty_like(old))
    fill(fresh, value, name)
    setattr(model.get_submodule(parent), leaf, fresh)
    return fresh
