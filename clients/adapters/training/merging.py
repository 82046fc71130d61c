"""Merging an adapter into the weights: the plain model for evaluation, and the base of all devices."""

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from slimfed.clients.adapter import Adapter, Delta
from slimfed.clients.models.linear import set_weight, weight_of


def fold(model: PreTrainedModel, adapter: Adapter, scaling: float) -> PreTrainedModel:
    """W <- W + residual + scaling * B A, or W + delta, for every adapted module, and the trained head, in place.

    Returns ``model``. ``adapter`` must have its (sliced) shape. Parameters are replaced, not written to, so that a base
    that shares parameters with ``model`` is unchanged. The same as attaching the adapter and merging it, but quicker,
    since PEFT injects no layers. Raises ``ValueError`` if a tensor does not fit.
    """
    for name, factors in adapter.factors.items():
        module = model.get_submodule(name)
        weight = weight_of(module).detach()
        change = scaling * (_like(factors.b, weight) @ _like(factors.a, weight))
        if name in adapter.residual:
            change += _fitting(name, _like(adapter.residual[name], weight), change)
        set_weight(module, weight + _fitting(name, change, weight))
    for name, delta in adapter.deltas.items():
        _add_entries(model.get_submodule(name), delta, name)
    for name, value in adapter.head.items():
        parent, _, leaf = name.rpartition(".")
        old = model.get_parameter(name)
        _replace(model.get_submodule(parent), leaf, _fitting(name, _like(value, old), old))
    return model


def _add_entries(module: nn.Module, delta: Delta, name: str) -> None:
    """W gains the delta's values at its entries; all other entries are unchanged to the bit."""
    if delta.indices is None:
        raise ValueError(f"{name}: a delta without its entries cannot be folded in")
    weight = weight_of(module).detach()
    whole = weight.clone(memory_format=torch.contiguous_format)
    if tuple(whole.shape) != delta.shape:
        raise ValueError(f"{name}: shape {list(delta.shape)} does not fit the model's {list(whole.shape)}")
    at = torch.from_numpy(delta.indices.astype(np.int64)).to(weight.device)
    flat = whole.view(-1)
    flat[at] += _like(delta.values, weight)
    set_weight(module, whole)


def changed(model: PreTrainedModel, residual: Mapping[str, np.ndarray]) -> PreTrainedModel:
    """A copy of an unpruned ``model`` with W + residual (float32 [out, in]) where there is one; shares the rest."""
    shared = [*model.parameters(), *model.buffers()]
    copied = copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
    for name, value in residual.items():
        module = copied.get_submodule(name)
        weight = weight_of(module).detach()
        set_weight(module, weight + _fitting(name, _like(value, weight), weight))
    return copied


def _like(value: np.ndarray, other: torch.Tensor) -> torch.Tensor:
    return torch.tensor(value, dtype=other.dtype, device=other.device)


def _fitting(name: str, tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    if tensor.shape != other.shape:
        raise ValueError(f"{name}: shape {list(tensor.shape)} does not fit the model's {list(other.shape)}")
    return tensor


def _replace(module: nn.Module, leaf: str, value: torch.Tensor) -> None:
    setattr(module, leaf, nn.Parameter(value, requires_grad=False))
