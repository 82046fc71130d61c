"""Training of sparse deltas: the values are trained, for one device or a cohort, beside the frozen weights."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel

from slimfed.clients.adapter import Adapter, Delta
from slimfed.clients.adapters.training.adapted import AdaptedModel, DeviceLayer, Read, attach_head
from slimfed.clients.adapters.training.base import AdapterTraining
from slimfed.clients.adapters.training.batched_layers import clear, masked_rows
from slimfed.clients.adapters.training.protocols import Kept
from slimfed.clients.models.linear import bias_of, is_transposed, oriented, shape_of, weight_of
from slimfed.clients.models.tensors import gradient, to_array
from slimfed.clients.pruning.adapter_slicing import place_delta
from slimfed.clients.spec import AdapterSpec, TaskSpec
from slimfed.clients.structure import Structure


class SparseTraining(AdapterTraining):
    """y = (W + D) x with D zero but for the decided entries; in phase 1 all entries of D are trained."""

    def attach(self, model: PreTrainedModel, structure: Structure, adapter: Adapter, task: TaskSpec) -> AdaptedModel:
        """As a parametrisation of the frozen weights."""
        layers: dict[str, DeviceLayer] = {}
        for name, delta in adapter.deltas.items():
            module = model.get_submodule(name)
            scatter = _Scatter(module, delta, name)
            parametrize.register_parametrization(module, "weight", scatter)
            layers[name] = SparseView(module, scatter, delta)
        return AdaptedModel(model, layers, attach_head(model, adapter.head))

    def cohort_layer(
        self, base: nn.Module, name: str, adapters: Sequence[Adapter], kept: Sequence[Kept], spec: AdapterSpec
    ) -> "CohortSparseLinear":
        """A module with one weight for each device."""
        return CohortSparseLinear(base, name, [adapter.deltas[name] for adapter in adapters], kept)


class _Scatter(nn.Module):
    """W -> W + D. ``at``: positions of the values in W's own memory order, int64 [k]; None: every entry."""

    def __init__(self, module: nn.Module, delta: Delta, name: str) -> None:
        super().__init__()
        weight, shape = weight_of(module), shape_of(module)
        if shape != delta.shape:
            raise ValueError(f"{name}: a delta of {list(delta.shape)} does not fit the module's {list(shape)}")
        self.values = nn.Parameter(torch.from_numpy(delta.values.copy()).to(weight.device, weight.dtype))
        self.at: torch.Tensor | None = None
        self.turned = is_transposed(module)
        if delta.indices is not None:
            self.at = torch.from_numpy(delta.indices.astype(np.int64)).to(weight.device)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Of the shape of ``weight``."""
        whole = weight.T if self.turned else weight
        if self.at is None:
            changed = whole + self.values.view_as(whole)
        else:
            changed = whole.reshape(-1).index_add(0, self.at, self.values).view_as(whole)
        return changed.T if self.turned else changed


@dataclass(frozen=True)
class SparseView:
    """One adapted linear of one device: y = (W + D) x."""

    module: nn.Module
    scatter: _Scatter
    delta: Delta

    @property
    def weight(self) -> torch.Tensor:
        """Frozen base weight [out, in]."""
        base: torch.Tensor = self.module.parametrizations.weight.original  # type: ignore[union-attr, assignment]
        return oriented(self.module, base)

    def trained(self) -> tuple[nn.Parameter, ...]:
        """The values."""
        return (self.scatter.values,)

    def undecayed(self) -> tuple[nn.Parameter, ...]:
        """Empty: weight decay acts on the values of D."""
        return ()

    def merged(self) -> torch.Tensor:
        """W + D."""
        return weight_of(self.module)

    def first_order(self, side: str) -> torch.Tensor:
        """First-order importance, of the entries whose gradient is known."""
        at, shape = self.scatter.at, self.weight.shape
        return _first_order(self.merged()[None], gradient(self.scatter.values)[None], at, shape, side)[0]

    def read(self, of: Read) -> Delta:
        """A copy of ``of(parameter)`` for the values."""
        return replace(self.delta, values=to_array(of(self.scatter.values)))


class CohortSparseLinear(nn.Module):
    """y_n = (W + D_n) (m_n * x_n) + bias for device n.

    ``values`` [devices, k] at ``at`` [k], the entries that any of the devices has; ``own`` is the mask of each device's
    entries.
    """

    def __init__(self, base: nn.Module, name: str, deltas: Sequence[Delta], kept: Sequence[Kept]) -> None:
        super().__init__()
        self.base = base
        self.mask: torch.Tensor | None = None
        weight = self.weight
        there = (weight.device, weight.dtype)
        self._shape = (int(weight.shape[0]), int(weight.shape[1]))
        self.at: torch.Tensor | None = None
        self.own: torch.Tensor | None = None
        self.levels: np.ndarray | None = None
        if deltas[0].indices is None:
            values = np.stack([delta.values for delta in deltas])
        else:
            values = self._place(name, deltas, kept, weight.device)
        self.values = nn.Parameter(torch.from_numpy(values).to(*there))

    @property
    def weight(self) -> torch.Tensor:
        """Frozen base weight [out, in]."""
        return weight_of(self.base)

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the frozen weight."""
        return self._shape

    @property
    def module(self) -> nn.Module:
        """The module itself, to hook."""
        return self

    def trained(self) -> tuple[nn.Parameter, ...]:
        """The values."""
        return (self.values,)

    def undecayed(self) -> tuple[nn.Parameter, ...]:
        """Empty: weight decay acts on the values."""
        return ()

    def merged(self) -> torch.Tensor:
        """W + D of every device."""
        if self.at is None:
            return self.weight + self.values.view(-1, *self.shape)
        values = self.values if self.own is None else self.values * self.own
        whole = self.weight.reshape(1, -1).expand(len(values), -1)
        return whole.index_add(1, self.at, values).view(-1, *self.shape)

    def first_order(self, side: str) -> torch.Tensor:
        """First-order importance, of the entries whose gradient is known."""
        return _first_order(self.merged(), gradient(self.values), self.at, self.shape, side)

    def clear(self, side: str, mask: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Zero the entries in rows or columns that devices have pruned, and their moments, so that they stay zero."""
        at = torch.arange(self.values.shape[1], device=self.values.device) if self.at is None else self.at
        where = at // self.shape[1] if side == "out" else at % self.shape[1]
        clear(self.values, mask[:, where], optimizer)

    def read(self) -> list[Delta]:
        """Every device's values, at the entries that any of the devices has."""
        at = None if self.at is None else self.at.cpu().numpy().astype(np.int32)
        return [Delta(self.shape, values, at, self.levels) for values in to_array(self.values)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[devices * rows, ..., in] -> [devices * rows, ..., out]."""
        rows = masked_rows(x, len(self.values), self.mask)
        weight = self.merged().mT.to(rows.dtype)
        bias = bias_of(self.base)
        y = torch.bmm(rows, weight)
        return (y if bias is None else y + bias.to(y.dtype)).reshape(*x.shape[:-1], -1)

    def _place(self, name: str, deltas: Sequence[Delta], kept: Sequence[Kept], device: torch.device) -> np.ndarray:
        """Values [devices, k], zero where a device has none; also sets their positions."""
        full = {(name, "out"): np.arange(self.shape[0]), (name, "in"): np.arange(self.shape[1])}
        placed = [
            place_delta(delta, (name, "out"), (name, "in"), own, full) for delta, own in zip(deltas, kept, strict=True)
        ]
        at = np.unique(np.concatenate([delta.indices for delta in placed]))
        values = np.zeros((len(placed), len(at)), np.float32)
        own = np.zeros(values.shape, np.float32)
        self.levels = np.zeros(len(at), np.uint16)
        for n, delta in enumerate(placed):
            where = np.searchsorted(at, delta.indices)  # type: ignore[arg-type]  # placed, so they are there
            values[n, where], own[n, where], self.levels[where] = delta.values, 1.0, delta.levels
        self.at = torch.from_numpy(at.astype(np.int64)).to(device)
        self.own = None if own.all() else torch.from_numpy(own).to(device)
        return values


def _first_order(
    merged: torch.Tensor, slope: torch.Tensor, at: torch.Tensor | None, shape: Sequence[int], side: str
) -> torch.Tensor:
    """|row or column sums of G * merged|, [n, size]; G holds ``slope`` [n, k] at the entries ``at`` (None: all)."""
    rows, columns = shape
    product = slope * (merged.flatten(1) if at is None else merged.flatten(1)[:, at])
    if at is None:
        return product.view(-1, rows, columns).sum(2 if side == "out" else 1).abs()
    where = at // columns if side == "out" else at % columns
    return product.new_zeros(len(product), rows if side == "out" else columns).index_add(1, where, product).abs()
