"""The trained state beside the frozen base, as it is sent and averaged: factors or sparse deltas, and a head."""

from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Factors:
    """LoRA factors of one module: ``a`` is float32 [rank, in], ``b`` is float32 [out, rank]; dW = scaling * b @ a.

    ``gate``: float32 [rank], SoRA's, already multiplied into ``b`` except while training; None without gate.
    """

    a: np.ndarray
    b: np.ndarray
    gate: np.ndarray | None = None

    def copy(self) -> "Factors":
        """The same values in arrays of their own."""
        return Factors(self.a.copy(), self.b.copy(), None if self.gate is None else self.gate.copy())

    def parts(self) -> dict[str, np.ndarray]:
        """The tensors by their names."""
        named = {"a": self.a, "b": self.b}
        return named if self.gate is None else named | {"gate": self.gate}


@dataclass(frozen=True)
class Delta:
    """A sparse change of one module: W [out, in] gains ``values``, float32 [k], at ``indices``.

    ``shape`` is W's. ``indices``: int32 [k], ascending, row * in + column. ``levels``: uint16 [k], the smallest rank at
    which a device trains the entry; None for proposed entries. ``indices`` is None if the receiver knows them (a
    device's update), or if all entries of W are trained.
    """

    shape: tuple[int, int]
    values: np.ndarray
    indices: np.ndarray | None = None
    levels: np.ndarray | None = None

    def owned(self, rows: np.ndarray | None, columns: np.ndarray | None, rank: int | None) -> np.ndarray:
        """Mask [k] of the entries of a device with these ``rows`` and ``columns`` (None: all) and this ``rank``."""
        if self.indices is None:
            raise ValueError("a delta without its entries cannot be cut")
        own = np.ones(len(self.indices), dtype=bool)
        if rank is not None and self.levels is not None:
            own &= self.levels <= rank
        for kept, place, size in zip((rows, columns), np.divmod(self.indices, self.shape[1]), self.shape, strict=True):
            if kept is not None:
                own &= np.isin(np.arange(size), kept)[place]
        return own


@dataclass(frozen=True)
class Adapter:
    """A trained state: LoRA factors, or sparse deltas, by module name, and head tensors by parameter name.

    ``extra``: further tensors that every device trains in full, by names that the adapter's method gives them.

    ``residual``: a change of the frozen weights that is the same for all devices, by module name, float32 [out, in]; W
    becomes W + residual. Only the server changes it (for aggregations that are exact in the product); devices receive
    it and return none.
    """

    factors: dict[str, Factors]
    head: dict[str, np.ndarray]
    residual: dict[str, np.ndarray] = field(default_factory=dict)
    deltas: dict[str, Delta] = field(default_factory=dict)
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    _vector: np.ndarray | None = field(init=False, default=None, repr=False, compare=False)

    def tensors(self) -> list[np.ndarray]:
        """All tensors in order: factors of every module, values of deltas, extra tensors, head, residual."""
        factors = [part for f in self.factors.values() for part in f.parts().values()]
        deltas = [delta.values for delta in self.deltas.values()]
        return [*factors, *deltas, *self.extra.values(), *self.head.values(), *self.residual.values()]

    @property
    def vector(self) -> np.ndarray:
        """All numbers in the order of :meth:`tensors`, float32; no copy where the tensors are views of one vector."""
        if self._vector is not None:
            return self._vector
        parts = [tensor.ravel() for tensor in self.tensors()]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)

    def with_vector(self, vector: np.ndarray) -> "Adapter":
        """An adapter of these shapes with the numbers of ``vector``, of which its tensors are views."""
        ends = np.cumsum([0, *(tensor.size for tensor in self.tensors())]).tolist()
        pieces = (vector[start:end] for start, end in pairwise(ends))
        factors = {
            name: Factors(**{part: next(pieces).reshape(tensor.shape) for part, tensor in f.parts().items()})
            for name, f in self.factors.items()
        }
        deltas = {name: replace(delta, values=next(pieces)) for name, delta in self.deltas.items()}
        extra, head, residual = (
            {name: next(pieces).reshape(tensor.shape) for name, tensor in part.items()}
            for part in (self.extra, self.head, self.residual)
        )
        return Adapter(factors, head, residual, deltas, extra).viewing(vector)

    def viewing(self, vector: np.ndarray) -> "Adapter":
        """This adapter, whose tensors are views of ``vector``, one after another."""
        object.__setattr__(self, "_vector", vector)
        return self

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, and of the deltas' indices where they are sent."""
        told = [delta.indices.nbytes for delta in self.deltas.values() if delta.indices is not None]
        return sum(tensor.nbytes for tensor in self.tensors()) + sum(told)

    @property
    def undecided(self) -> bool:
        """True for sparse deltas before the server has chosen their entries."""
        return bool(self.deltas) and not any(delta.values.size for delta in self.deltas.values())

    def budget(self, rank: int) -> int:
        """Number of entries that a device of ``rank`` trains: that of LoRA's parameters at this rank."""
        return rank * sum(sum(delta.shape) for delta in self.deltas.values())

    @property
    def effective_rank(self) -> float:
        """Mean over the modules of the ranks that are not switched off; of deltas, the rank with as many numbers."""
        if self.deltas:
            one = self.budget(1)
            return sum(d.values.size for d in self.deltas.values()) / one if one else 0.0
        ranks = [len(f.a) if f.gate is None else int(np.count_nonzero(f.gate)) for f in self.factors.values()]
        return float(np.mean(ranks)) if ranks else 0.0
