"""A base that carries the adapters of a whole cohort."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from slimfed.clients.cohort.layers import CohortHead, CohortLinear
from slimfed.clients.slicing import narrow
from slimfed.clients.spec import AdapterSpec
from slimfed.clients.structure import Blueprint, Structure
from slimfed.clients.update import Adapter, Factors

_Kept = dict[tuple[str, str], np.ndarray]
_ALL = slice(None)


@dataclass(frozen=True)
class CohortModel:
    """The dense base with cohort modules in place of its adapted linears and its head; weights are shared with it."""

    model: PreTrainedModel
    blueprint: Blueprint
    layers: dict[str, CohortLinear]
    head: dict[str, nn.Parameter]
    ranks: tuple[int, ...]

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.model.device

    @property
    def lead(self) -> tuple[int, ...]:
        """One leading axis: the devices."""
        return (len(self.ranks),)

    def layer(self, name: str) -> CohortLinear:
        """The adapted linear called ``name`` in the base."""
        return self.layers[name]

    def factors(self) -> list[nn.Parameter]:
        """A and B of every module, in order; each [devices, ...]."""
        return [p for layer in self.layers.values() for p in (layer.a, layer.b)]

    def parameters(self) -> list[nn.Parameter]:
        """All that is trained: factors, then the head; each [devices, ...]."""
        return self.factors() + list(self.head.values())

    def set_structures(self, structures: Sequence[Structure]) -> None:
        """Mask what the devices have not."""
        for (name, side), mask in self._masks(structures):
            if side == "in":
                self.layers[name].mask = mask

    def clear_removed(self, structures: Sequence[Structure], optimizer: torch.optim.Optimizer) -> None:
        """Zero the factors' rows and columns that the devices have lost, and their moments, so that they stay zero."""
        with torch.no_grad():
            for (name, side), mask in self._masks(structures):
                parameter = self.layers[name].a if side == "in" else self.layers[name].b
                spread = mask[:, None, :] if side == "in" else mask[:, :, None]
                parameter.mul_(spread)
                for moment in ("exp_avg", "exp_avg_sq"):
                    if moment in optimizer.state.get(parameter, {}):
                        optimizer.state[parameter][moment].mul_(spread)

    def read(self, structures: Sequence[Structure]) -> list[Adapter]:
        """Copies of the devices' adapters, each in its own shape. Every parameter is fetched once, for all devices."""
        a = {name: _array(layer.a) for name, layer in self.layers.items()}
        b = {name: _array(layer.b) for name, layer in self.layers.items()}
        head = {name: _array(parameter) for name, parameter in self.head.items()}
        dense = self.blueprint.dense()
        adapters = []
        for n, (structure, rank) in enumerate(zip(structures, self.ranks, strict=True)):
            factors = {name: Factors(a[name][n], b[name][n]) for name in self.layers}
            whole = Adapter(factors, {name: tensor[n].copy() for name, tensor in head.items()})
            adapters.append(narrow(whole, dense, structure, rank))
        return adapters

    def _masks(self, structures: Sequence[Structure]) -> Iterator[tuple[tuple[str, str], torch.Tensor]]:
        """``(module, side)`` and its 0/1 mask [devices, size]."""
        kept = [structure.indices() for structure in structures]
        for name, side in kept[0]:
            layer = self.layers[name]
            size = layer.a.shape[-1] if side == "in" else layer.b.shape[-2]
            mask = np.zeros((len(kept), size), dtype=np.float32)
            for row, indices in zip(mask, kept, strict=True):
                row[indices[name, side]] = 1.0
            yield (name, side), torch.from_numpy(mask).to(self.device)


def attach_cohort(
    base: PreTrainedModel,
    blueprint: Blueprint,
    adapters: Sequence[Adapter],
    structures: Sequence[Structure],
    spec: AdapterSpec,
) -> CohortModel:
    """Build the model of a cohort from its devices' adapters, each in its own shape. ``base`` is not changed."""
    shared = [*base.parameters(), *base.buffers()]
    model = copy.deepcopy(base, {id(tensor): tensor for tensor in shared})
    ranks = tuple(next(iter(adapter.factors.values())).a.shape[0] for adapter in adapters)
    kept = [structure.indices() for structure in structures]
    layers = {name: _adapted(model, name, adapters, kept, max(ranks), spec.scaling) for name in blueprint.modules}
    head: dict[str, nn.Parameter] = {}
    for name in dict.fromkeys(parameter.rpartition(".")[0] for parameter in adapters[0].head):
        module = _head(model, name, adapters)
        _put(model, name, module)
        head |= {f"{name}.{leaf}": p for leaf, p in module.named_parameters()}
    cohort = CohortModel(model, blueprint, layers, {name: head[name] for name in adapters[0].head}, ranks)
    cohort.set_structures(structures)
    return cohort


def supports(base: PreTrainedModel, head: Sequence[str]) -> bool:
    """True if every head parameter belongs to a linear module, which is all that a cohort can train in full."""
    return all(isinstance(base.get_submodule(name.rpartition(".")[0]), nn.Linear) for name in head)


def _adapted(
    model: PreTrainedModel, name: str, adapters: Sequence[Adapter], kept: Sequence[_Kept], rank: int, scaling: float
) -> CohortLinear:
    """The module called ``name`` with every device's factors where they lie in the unpruned one, zeros elsewhere."""
    module = model.get_submodule(name)
    rows, columns = module.weight.T.shape if isinstance(module, Conv1D) else module.weight.shape
    a = np.zeros((len(adapters), rank, columns), dtype=np.float32)
    b = np.zeros((len(adapters), rows, rank), dtype=np.float32)
    for n, adapter in enumerate(adapters):
        factors = adapter.factors[name]
        own = len(factors.a)
        a[n][:own, kept[n].get((name, "in"), _ALL)] = factors.a
        b[n][kept[n].get((name, "out"), _ALL), :own] = factors.b
    there = (model.device, model.dtype)
    layer = CohortLinear(module, torch.from_numpy(a).to(*there), torch.from_numpy(b).to(*there), scaling)
    _put(model, name, layer)
    return layer


def _head(model: PreTrainedModel, name: str, adapters: Sequence[Adapter]) -> CohortHead:
    weight, bias = (
        torch.from_numpy(np.stack([a.head[f"{name}.{leaf}"] for a in adapters])).to(model.device, model.dtype)
        if f"{name}.{leaf}" in adapters[0].head
        else None
        for leaf in ("weight", "bias")
    )
    if weight is None:
        raise ValueError(f"head {name}: a cohort trains a linear module's weight, with or without its bias")
    return CohortHead(weight, bias)


def _put(model: PreTrainedModel, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float32, copy=True).numpy()
