"""The prunable units of a model (blueprint), and the units that a device still has (structure).

A *unit* is the smallest part that is removed: one attention head (one KV group with its query heads under GQA) or one
FFN channel. Units are numbered through the whole model, block after block, so that a structure is one boolean vector
and a device's scores are one float vector of the same length.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

Kind = Literal["attention", "ffn"]


@dataclass(frozen=True)
class Cut:
    """The rows or columns of one linear module that belong to a block's units.

    Unit ``u`` owns, on ``side`` ("out": rows of the weight, "in": columns), the index ranges
    ``[start + u * width, start + (u + 1) * width)`` for every ``start`` (several for fused projections).
    """

    module: str
    side: Literal["out", "in"]
    width: int
    starts: tuple[int, ...] = (0,)

    def indices(self, kept: np.ndarray) -> np.ndarray:
        """Rows or columns that belong to the ``kept`` units (int64, in the module's own order)."""
        within = (np.asarray(kept, dtype=np.int64)[:, None] * self.width + np.arange(self.width)).reshape(-1)
        return np.concatenate([start + within for start in self.starts])


@dataclass(frozen=True)
class Block:
    """One attention or FFN block: its units, and the modules they are cut from together."""

    name: str
    layer: int
    kind: Kind
    units: int
    unit_parameters: int
    cuts: tuple[Cut, ...]


@dataclass(frozen=True)
class Blueprint:
    """The prunable structure of one model: its blocks in forward order."""

    family: str
    blocks: tuple[Block, ...]

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Position of each block's first unit, and the total at the end."""
        return tuple(int(n) for n in np.cumsum([0, *(block.units for block in self.blocks)]))

    @property
    def units(self) -> int:
        """Units in the whole model: the length of every structure and score vector."""
        return self.offsets[-1]

    @cached_property
    def parameters(self) -> np.ndarray:
        """Number of parameters of each unit, int64 [units]."""
        return np.repeat([b.unit_parameters for b in self.blocks], [b.units for b in self.blocks]).astype(np.int64)

    @cached_property
    def modules(self) -> tuple[str, ...]:
        """Every linear module that a cut touches, in order: the modules that carry an adapter."""
        return tuple(dict.fromkeys(cut.module for block in self.blocks for cut in block.cuts))

    @cached_property
    def lines(self) -> dict[tuple[str, str], np.ndarray]:
        """``(module, side)`` -> the unit of each row or column of the unpruned module, int64, model-wide numbers."""
        found: dict[tuple[str, str], np.ndarray] = {}
        for offset, block in zip(self.offsets, self.blocks, strict=False):
            every = np.arange(block.units)
            for cut in block.cuts:
                at = cut.indices(every)
                units = np.empty(len(at), dtype=np.int64)
                units[at] = offset + np.tile(np.repeat(every, cut.width), len(cut.starts))
                found[cut.module, cut.side] = units
        return found

    def span(self, index: int) -> slice:
        """The slice of block ``index`` in a structure or score vector."""
        return slice(self.offsets[index], self.offsets[index + 1])

    def dense(self) -> "Structure":
        """The structure of the unpruned model."""
        return Structure(self, np.ones(self.units, dtype=bool))


@dataclass(frozen=True, eq=False)
class Structure:
    """The units a device has kept: ``keep`` is bool [units]; at least one unit of every block is kept."""

    blueprint: Blueprint
    keep: np.ndarray

    def __post_init__(self) -> None:
        if self.keep.dtype != np.bool_ or self.keep.shape != (self.blueprint.units,):
            raise ValueError(
                f"structure must be bool [{self.blueprint.units}], got {self.keep.dtype} {list(self.keep.shape)}"
            )
        for index, block in enumerate(self.blueprint.blocks):
            if not self.keep[self.blueprint.span(index)].any():
                raise ValueError(f"structure keeps no unit of {block.name}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Structure) and np.array_equal(self.keep, other.keep)

    def kept(self, index: int) -> np.ndarray:
        """Kept units of block ``index``, counted within the block (int64, ascending)."""
        return np.flatnonzero(self.keep[self.blueprint.span(index)])

    def indices(self) -> dict[tuple[str, str], np.ndarray]:
        """``(module, side)`` -> kept rows or columns, in the coordinates of the unpruned module; computed once."""
        return self._indices

    def sizes(self) -> dict[tuple[str, str], int]:
        """``(module, side)`` -> number of kept rows or columns: the lengths of :meth:`indices`, without them."""
        counts = np.add.reduceat(self.keep, self.blueprint.offsets[:-1], dtype=np.int64).tolist()
        return {
            (cut.module, cut.side): count * cut.width * len(cut.starts)
            for count, block in zip(counts, self.blueprint.blocks, strict=True)
            for cut in block.cuts
        }

    def forget(self) -> None:
        """Free the cached result of :meth:`indices`, which is many times as large as the structure."""
        self.__dict__.pop("_indices", None)

    @cached_property
    def _indices(self) -> dict[tuple[str, str], np.ndarray]:
        found: dict[tuple[str, str], np.ndarray] = {}
        for index, block in enumerate(self.blueprint.blocks):
            kept = self.kept(index)
            alike: dict[tuple[int, tuple[int, ...]], np.ndarray] = {}  # most cuts of a block have equal positions
            for cut in block.cuts:
                place = cut.width, cut.starts
                if place not in alike:
                    alike[place] = cut.indices(kept)
                found[cut.module, cut.side] = alike[place]
        return found

    @cached_property
    def sparsity(self) -> float:
        """Share of the prunable parameters that has been removed, in [0, 1)."""
        parameters = self.blueprint.parameters
        return 1.0 - float(parameters[self.keep].sum() / parameters.sum())

    def within(self, other: "Structure") -> bool:
        """True if ``other`` keeps all units of this structure."""
        return bool((~self.keep | other.keep).all())

    def pack(self) -> np.ndarray:
        """The structure as bits, uint8 [ceil(units / 8)], for messages and checkpoints."""
        return np.packbits(self.keep)

    @staticmethod
    def unpack(blueprint: Blueprint, bits: np.ndarray) -> "Structure":
        """Inverse of :meth:`pack`. Raises ``ValueError`` if the bits do not fit the blueprint."""
        if bits.dtype != np.uint8 or bits.shape != (-(-blueprint.units // 8),):
            raise ValueError(f"packed structure does not fit {blueprint.units} units: {bits.dtype} {list(bits.shape)}")
        return Structure(blueprint, np.unpackbits(bits, count=blueprint.units).astype(bool))


def union(structures: Iterable[Structure]) -> Structure:
    """The smallest structure that contains all of ``structures``, which are of one blueprint; there is at least one."""
    every = list(structures)
    return Structure(every[0].blueprint, np.logical_or.reduce([structure.keep for structure in every]))
