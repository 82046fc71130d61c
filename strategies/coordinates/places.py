"""Positions of a device's factors within the global factors."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.messages.quantization import value_bytes
from slimfed.clients.spec import Precision
from slimfed.clients.structure import Structure

_ALL = slice(None)


@dataclass(frozen=True)
class Place:
    """Indices of one module's factors: ``rows`` of b and ``columns`` of a that a structure has kept, and its rank."""

    rank: int
    rows: np.ndarray | slice
    columns: np.ndarray | slice

    def of(self, part: str) -> Any:
        """Index of the device's ``part`` ("a", "b" or "gate") within the global one."""
        return {"a": self.a, "b": self.b, "gate": slice(self.rank)}[part]

    @property
    def a(self) -> tuple[Any, Any]:
        """Index of the device's a within the global a [r_max, in]."""
        return slice(self.rank), self.columns

    @property
    def b(self) -> tuple[Any, Any]:
        """Index of the device's b within the global b [out, r_max]."""
        return self.rows, slice(self.rank)


def places(adapter: Adapter, structure: Structure, rank: int) -> dict[str, Place]:
    """The place of every module of ``adapter`` for a device of this ``structure`` and ``rank``."""
    return {
        module: Place(rank, _kept(structure, module, "out"), _kept(structure, module, "in"))
        for module in adapter.factors
    }


def _kept(structure: Structure, module: str, side: str) -> np.ndarray | slice:
    """As ``Structure.indices``, for one side of one module."""
    units = structure.blueprint.lines.get((module, side))
    return _ALL if units is None else np.flatnonzero(structure.keep[units])


def device_shapes(
    adapter: Adapter, structure: Structure, rank: int
) -> dict[str, tuple[tuple[int, int], tuple[int, int]]]:
    """Shapes that the factors (a, b) of every module of the global ``adapter`` have on a device."""
    kept = structure.sizes()
    shapes = {}
    for module, f in adapter.factors.items():
        columns, rows = int(f.a.shape[1]), int(f.b.shape[0])
        shapes[module] = (rank, kept.get((module, "in"), columns)), (kept.get((module, "out"), rows), rank)
    return shapes


def owned_entries(adapter: Adapter, structure: Structure, rank: int) -> dict[str, np.ndarray]:
    """Which entries of every delta of the global ``adapter`` a device of this ``structure`` and ``rank`` has: [k]."""
    if not adapter.deltas:
        return {}
    kept = structure.indices()
    return {
        module: delta.owned(kept.get((module, "out")), kept.get((module, "in")), rank)
        for module, delta in adapter.deltas.items()
    }


def device_bytes(adapter: Adapter, structure: Structure, rank: int, precision: Precision = "fp32") -> int:
    """Bytes of the part of the global ``adapter`` that a device of this ``structure`` and ``rank`` is sent."""
    shapes = device_shapes(adapter, structure, rank)
    numbers = sum(tensor.size for tensor in adapter.head.values())
    numbers += sum(prod(a) + prod(b) for a, b in shapes.values())
    numbers += rank * sum(f.gate is not None for f in adapter.factors.values())
    numbers += sum(shapes[module][1][0] * shapes[module][0][1] for module in adapter.residual)
    numbers += sum(tensor.size for tensor in adapter.extra.values())
    numbers += 2 * sum(int(own.sum()) for own in owned_entries(adapter, structure, rank).values())  # and where they lie
    scales = 2 * rank * len(shapes) + len(adapter.head)
    return value_bytes(numbers, scales, precision)  # in fp32 all are float32, and indices int32
