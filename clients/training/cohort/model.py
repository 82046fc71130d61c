"""A base that carries the adapters of a whole cohort."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.adapters.training.adapted import assembled
from slimfed.clients.adapters.training.batched_layers import BareCohortLinear, CohortHead, CohortLinear
from slimfed.clients.adapters.training.broadcast import Broadcast
from slimfed.clients.adapters.training.protocols import CohortLayer
from slimfed.clients.models.tensors import to_array, to_host
from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.clients.pruning.device_masks import factor_masks, rank_mask, side_masks
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.clients.spec import AdapterSpec
from slimfed.clients.structure import Blueprint, Structure, union
from slimfed.clients.training.cohort.fused_norms import fuse_norms

_Kept = dict[tuple[str, str], np.ndarray]
_WORTH_CUTTING = 0.02


@dataclass(frozen=True)
class Members:
    """The devices of a cohort: each one's adapter in its own shape, the structure it has, and its rank."""

    adapters: Sequence[Adapter]
    structures: Sequence[Structure]
    ranks: Sequence[int]


@dataclass(frozen=True)
class CohortModel:
    """The base, sliced to ``envelope``, with cohort modules in place of its adapted linears and its head.

    ``envelope`` holds every unit that any of the devices has; modules that are not sliced share their weights with the
    base. ``bare``: linears that are cut and carry no adapter.
    """

    model: PreTrainedModel
    blueprint: Blueprint
    envelope: Structure
    layers: dict[str, CohortLayer]
    head: dict[str, nn.Parameter]
    ranks: tuple[int, ...]
    extra: dict[str, nn.Parameter] = field(default_factory=dict)
    spares: Callable[[str], bool] = lambda _name: False
    bare: dict[str, CohortLayer] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Torch device of the model."""
        return self.model.device

    @property
    def lead(self) -> tuple[int, ...]:
        """One leading axis: the devices."""
        return (len(self.ranks),)

    def layer(self, name: str) -> CohortLayer:
        """The linear called ``name`` in the base, whether it carries an adapter or not."""
        return self.layers[name] if name in self.layers else self.bare[name]

    def adapter_parameters(self) -> list[nn.Parameter]:
        """The adapters' trained parameters, in module order; each [devices, ...]."""
        return [p for layer in self.layers.values() for p in layer.trained()] + list(self.extra.values())

    def undecayed(self) -> list[nn.Parameter]:
        """Parameters without weight decay."""
        spared = [p for layer in self.layers.values() for p in layer.undecayed()]
        return spared + [p for name, p in self.extra.items() if self.spares(name)]

    def parameters(self) -> list[nn.Parameter]:
        """All trained parameters: the adapters', then the head's; each [devices, ...]."""
        return self.adapter_parameters() + list(self.head.values())

    def set_structures(self, structures: Sequence[Structure]) -> None:
        """Mask the devices' missing units. Existing masks change in place."""
        for (name, side), mask in self._masks(structures):
            layer = self.layer(name)
            if side == "in" and layer.mask is not None:
                layer.mask.copy_(mask)
            elif side == "in":
                layer.mask = mask.to(self.model.dtype)

    def clear_removed(self, structures: Sequence[Structure], optimizer: torch.optim.Optimizer) -> None:
        """Zero values and moments in the rows and columns that the devices have pruned, so that they stay zero."""
        for (name, side), mask in self._masks(structures):
            self.layer(name).clear(side, mask, optimizer)

    def read(self, structures: Sequence[Structure]) -> list[Adapter]:
        """The devices' adapters, each in its own shape."""
        low_rank = not self.extra and all(isinstance(layer, CohortLinear) for layer in self.layers.values())
        if low_rank and self.device.type == "cuda":  # in main memory this is slower
            return self.read_low_rank(structures)
        learnt = {name: layer.read() for name, layer in self.layers.items()}
        extra, head = ({name: to_array(p) for name, p in part.items()} for part in (self.extra, self.head))
        adapters = []
        for n, (structure, rank) in enumerate(zip(structures, self.ranks, strict=True)):
            parts = {name: of_all[n] for name, of_all in learnt.items()}
            whole = assembled(parts, *({name: tensor[n].copy() for name, tensor in w.items()} for w in (extra, head)))
            adapters.append(narrow(whole, self.envelope, structure, rank))
        return adapters

    def read_low_rank(self, structures: Sequence[Structure]) -> list[Adapter]:
        """As :meth:`read`, for plain factors: selected on the processor and copied to the host in one piece."""
        values = torch.cat([parameter.detach().flatten(1) for parameter in self.parameters()], dim=1)
        if len(set(self.ranks)) > 1 or not all(structure.keep.all() for structure in structures):
            values = values[self._owned(structures)]
        fetched = to_host(values.flatten().float())
        adapters, start = [], 0
        for structure, rank in zip(structures, self.ranks, strict=True):
            kept = structure.indices()
            factors = {}
            for name, layer in self.layers.items():
                rows, columns = layer.shape
                out, into = len(kept.get((name, "out"), range(rows))), len(kept.get((name, "in"), range(columns)))
                parts = []
                for shape in ((rank, into), (out, rank), (rank,))[: len(layer.trained())]:
                    parts.append(fetched[start : start + prod(shape)].reshape(shape))
                    start += prod(shape)
                factors[name] = Factors(*parts)
            head = {}
            for name, parameter in self.head.items():
                head[name] = fetched[start : start + parameter[0].numel()].reshape(parameter.shape[1:])
                start += parameter[0].numel()
            adapters.append(Adapter(factors, head))
        return adapters

    def _owned(self, structures: Sequence[Structure]) -> torch.Tensor:
        """Mask of each device's entries, in the order of :meth:`read_low_rank`: bool [devices, entries]."""
        masks, ranks = side_masks(structures, self.device), rank_mask(self.ranks, self.device)
        owned: list[torch.Tensor] = []
        for name, layer in self.layers.items():
            has = factor_masks(name, masks, ranks, *layer.shape)
            owned += list(has.values())[: len(layer.trained())]
        owned += [torch.ones_like(parameter, dtype=torch.bool) for parameter in self.head.values()]
        return torch.cat([mask.flatten(1) for mask in owned], dim=1)

    def _masks(self, structures: Sequence[Structure]) -> Iterator[tuple[tuple[str, str], torch.Tensor]]:
        """``(module, side)`` and its 0/1 mask [devices, size]."""
        there = self.envelope.indices()
        cut = not self.envelope.keep.all()
        for key, mask in side_masks(structures, self.device).items():
            yield key, (mask[:, torch.from_numpy(there[key])] if cut else mask).float()


def attach_cohort(
    base: PreTrainedModel, members: Members, spec: AdapterSpec, dtype: torch.dtype | None = None
) -> CohortModel:
    """Build the model of a cohort from its members. ``base`` is not changed.

    It computes in ``dtype`` (default: that of the base); trained parameters have the type of the base. The caller sets
    the masks (:meth:`CohortModel.set_structures`), if a device lacks units or will prune.
    """
    adapters, structures = members.adapters, members.structures
    blueprint, envelope = structures[0].blueprint, _envelope(structures, base.device)
    if not envelope.keep.all():
        base, adapters = slice_model(base, envelope), list(adapters)
    model = _copy(base, blueprint, dtype or base.dtype)
    kept = _places(structures, envelope)
    training, layers = ADAPTERS[spec.name].training, {}
    adapted, bare = _adapted(adapters), dict[str, CohortLayer]()
    for name in blueprint.modules:
        module = base.get_submodule(name)
        if name in adapted:
            layers[name] = training.cohort_layer(module, name, adapters, kept, spec)
            _put(model, name, layers[name].module)
        else:
            bare[name] = BareCohortLinear(module, len(adapters))
            _put(model, name, bare[name].module)
    head: dict[str, nn.Parameter] = {}
    heads = _heads(base, adapters)
    for name in dict.fromkeys(parameter.rpartition(".")[0] for parameter in heads):
        if f"{name}.weight" not in heads:
            raise ValueError(f"head {name}: a cohort trains a linear module's weight, with or without its bias")
        module = CohortHead(heads[f"{name}.weight"], heads.get(f"{name}.bias"))
        _put(model, name, module)
        head |= {f"{name}.{leaf}": p for leaf, p in module.named_parameters()}
    extra = _extra(base, adapters)
    if extra:
        training.install(base, model, blueprint, extra)
    elif base.device.type == "cuda":
        fuse_norms(model)
    head = {name: head[name] for name in heads}
    return CohortModel(model, blueprint, envelope, layers, head, tuple(members.ranks), extra, training.undecayed, bare)


def _adapted(adapters: Sequence[Adapter]) -> set[str]:
    """Names of the modules that carry an adapter."""
    one = adapters.whole if isinstance(adapters, Broadcast) else adapters[0]
    return {*one.factors, *one.deltas}


def supports(base: PreTrainedModel, head: Sequence[str]) -> bool:
    """True if every head parameter belongs to a linear module, as a cohort requires."""
    return all(isinstance(base.get_submodule(name.rpartition(".")[0]), nn.Linear) for name in head)


def _envelope(structures: Sequence[Structure], device: torch.device) -> Structure:
    """The structure to slice the base to: the union of the devices', or the dense one if that is about as small.

    On a GPU, products of the model's original sizes are faster than those of odd sizes.
    """
    envelope = union(structures)
    worth = device.type == "cpu" and envelope.sparsity > _WORTH_CUTTING
    return envelope if worth else envelope.blueprint.dense()


def _places(structures: Sequence[Structure], envelope: Structure) -> list[_Kept]:
    """``(module, side)`` -> rows or columns of each device, counted among those of ``envelope``."""
    if envelope.keep.all():
        return [dict(structure.indices()) for structure in structures]
    there = envelope.indices()
    return [{key: np.searchsorted(there[key], own) for key, own in s.indices().items()} for s in structures]


def _copy(base: PreTrainedModel, blueprint: Blueprint, dtype: torch.dtype) -> PreTrainedModel:
    """Copies of the modules of ``base`` with shared tensors; in another ``dtype`` without adapted modules."""
    cast = {} if dtype == base.dtype else {id(p): p for p in base.parameters() if p.is_floating_point()}
    for name in blueprint.modules:
        for parameter in base.get_submodule(name).parameters():
            cast.pop(id(parameter), None)
    shared = {id(thing): thing for thing in (*base.parameters(), *base.buffers(), base.config)}
    fresh = {key: nn.Parameter(p.detach().to(dtype), requires_grad=False) for key, p in cast.items()}
    return copy.deepcopy(base, shared | fresh)


def _extra(base: PreTrainedModel, adapters: Sequence[Adapter]) -> dict[str, nn.Parameter]:
    """The devices' extra tensors, each [devices, ...]."""
    stacked = {name: np.stack([adapter.extra[name] for adapter in adapters]) for name in adapters[0].extra}
    return {n: nn.Parameter(torch.from_numpy(value).to(base.device, base.dtype)) for n, value in stacked.items()}


def _heads(base: PreTrainedModel, adapters: Sequence[Adapter]) -> dict[str, torch.Tensor]:
    """The devices' head parameters, each [devices, ...]; if all receive the same, a view that repeats it."""
    there = (base.device, base.dtype)
    if isinstance(adapters, Broadcast):
        shared = {name: torch.tensor(value).to(*there) for name, value in adapters.whole.head.items()}
        return {name: tensor.expand(len(adapters), *tensor.shape) for name, tensor in shared.items()}
    return {
        name: torch.from_numpy(np.stack([adapter.head[name] for adapter in adapters])).to(*there)
        for name in adapters[0].head
    }


def _put(model: PreTrainedModel, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
