"""What a device trains beside the frozen base, as it travels and is averaged: factors or sparse deltas, and a head."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Factors:
    """LoRA factors of one module: ``a`` is float32 [rank, in], ``b`` is float32 [out, rank]; dW = scaling * b @ a.

    ``gate``: float32 [rank], SoRA's, already within ``b`` wherever an adapter is not being trained; else None.
    """

    a: np.ndarray
    b: np.ndarray
    gate: np.ndarray | None = None

    def parts(self) -> dict[str, np.ndarray]:
        """The tensors by their names."""
        named = {"a": self.a, "b": self.b}
        return named if self.gate is None else named | {"gate": self.gate}


@dataclass(frozen=True)
class Delta:
    """A sparse change of one module: W [out, in] gains ``values``, float32 [k], at ``indices``.

    ``shape`` is W's. ``indices``: int32 [k], ascending, row * in + column. ``levels``: uint16 [k], the smallest rank at
    which a device trains the entry; None for entries that are proposed, not decided. Where the receiver knows them
    (a device's update), and where all entries of W are trained, ``indices`` is None.
    """

    shape: tuple[int, int]
    values: np.ndarray
    indices: np.ndarray | None = None
    levels: np.ndarray | None = None

    def owned(self, rows: np.ndarray | None, columns: np.ndarray | None, rank: int | None) -> np.ndarray:
        """Which entries a device has that kept these ``rows`` and ``columns`` (None: all) and trains ``rank``: [k]."""
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

    ``residual``: a change of the frozen weights that is the same for all devices, by module name, float32 [out, in];
    W becomes W + residual. The server alone makes it (aggregations that are exact in the product need it), devices are
    sent it and send none back.
    """

    factors: dict[str, Factors]
    head: dict[str, np.ndarray]
    residual: dict[str, np.ndarray] = field(default_factory=dict)
    deltas: dict[str, Delta] = field(default_factory=dict)
    extra: dict[str, np.ndarray] = field(default_factory=dict)

    def tensors(self) -> list[np.ndarray]:
        """All numbers: factors of every module in order, values of deltas, extra tensors, head, residual."""
        factors = [part for f in self.factors.values() for part in f.parts().values()]
        deltas = [delta.values for delta in self.deltas.values()]
        return [*factors, *deltas, *self.extra.values(), *self.head.values(), *self.residual.values()]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, and of the deltas' indices where they are told."""
        told = [delta.indices.nbytes for delta in self.deltas.values() if delta.indices is not None]
        return sum(tensor.nbytes for tensor in self.tensors()) + sum(told)

    @property
    def undecided(self) -> bool:
        """True for sparse deltas whose entries the server has still to decide: there is none yet."""
        return bool(self.deltas) and not any(delta.values.size for delta in self.deltas.values())

    def budget(self, rank: int) -> int:
        """Entries that a device of ``rank`` trains of sparse deltas: as many as LoRA's factors of that rank have."""
        return rank * sum(sum(delta.shape) for delta in self.deltas.values())

    @property
    def effective_rank(self) -> float:
        """Mean over the modules of the ranks that are not switched off; of deltas, the rank with as many numbers."""
        if self.deltas:
            one = self.budget(1)
            return sum(d.values.size for d in self.deltas.values()) / one if one else 0.0
        ranks = [len(f.a) if f.gate is None else int(np.count_nonzero(f.gate)) for f in self.factors.values()]
        return float(np.mean(ranks)) if ranks else 0.0
