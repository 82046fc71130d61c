"""The global adapter as one vector, and a device's numbers within it: for operations on all numbers at once."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from slimfed.clients.adapter import Adapter
from slimfed.clients.structure import Blueprint, Structure
from slimfed.clients.update import Update
from slimfed.strategies.coordinates.places import device_shapes, owned_entries

# A processor's cache holds so many numbers several times, and one thread works on them, so that sums of squares are the
# same to the bit whatever else runs. A GPU is fastest with all at once.
_CPU_BLOCK = 2**15
_MASKS = 8


@dataclass(frozen=True)
class Placed:
    """A device's numbers in global coordinates: ``values`` float32 [n], 0 where not ``owned``, which is bool [n].

    ``count``: number of those that it owns.
    """

    values: torch.Tensor
    owned: torch.Tensor
    count: int


class GlobalVector:
    """The numbers of the global adapter ``before``: its factors, decided deltas, extra tensors and head, in this order.

    A device of some structure and rank owns some of them; its own vector has these in the same order. So its vector is
    placed by one mask instead of tensor by tensor. Everything lies on the GPU if there is one.

    ``values``: float32 [n]. ``deltas``: where entries of deltas lie. ``shared``: the numbers from here on are of extra
    tensors and the head, which all devices own. ``ranks``: the largest rank. ``lines``: units of the model, and one for
    all numbers that belong to none.
    """

    def __init__(self, before: Adapter, blueprint: Blueprint) -> None:
        self.before = before
        self._shaped = _without_residual(before)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.values = self._tensor(self._shaped.vector)
        self.shared = len(self.values) - sum(t.size for part in (before.extra, before.head) for t in part.values())
        units, levels = _owners(self._shaped, blueprint)
        self._units = torch.from_numpy(units).to(self.device)
        self._levels = torch.from_numpy(levels).to(self.device)
        self.ranks, self.lines = int(levels.max(initial=0)) + 1, blueprint.units + 1
        entries = sum(delta.values.size for delta in self._shaped.deltas.values())
        self.deltas = slice(self.shared - entries, self.shared)
        self._delta_columns = _delta_columns(self._shaped, blueprint)
        self._masks: dict[tuple[bytes, int], torch.Tensor] = {}
        self._last: tuple[Update, Placed] | None = None
        self._fitting: Update | None = None

    def __len__(self) -> int:
        return len(self.values)

    def _tensor(self, vector: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(vector if vector.flags.writeable else vector.copy()).to(self.device)

    def owned(self, structure: Structure, rank: int) -> torch.Tensor:
        """Which numbers a device of this ``structure`` and ``rank`` has, bool [n]; the last few masks are kept."""
        key = structure.keep.tobytes(), rank
        if key not in self._masks:
            while len(self._masks) >= _MASKS:
                del self._masks[next(iter(self._masks))]
            self._masks[key] = self._mask(structure, rank)
        return self._masks[key]

    def _mask(self, structure: Structure, rank: int) -> torch.Tensor:
        keep = torch.from_numpy(np.append(structure.keep, True)).to(self.device)
        mask = keep.index_select(0, self._units)
        mask &= self._levels < rank
        for place, columns in self._delta_columns:
            mask[place] &= keep.index_select(0, columns.to(self.device))
        return mask

    def place(self, update: Update) -> Placed:
        """The numbers of ``update``. Raises ``ValueError`` if its names, shapes or types do not fit.

        The last one is kept, since an update is checked first, and then summed.
        """
        if self._last is None or self._last[0] is not update:
            self._last = update, self._placed(update)
        return self._last[1]

    def _placed(self, update: Update) -> Placed:
        fault = None if self._fitting is update else self.misfit(update)
        if fault:
            raise ValueError(f"the update of device {update.device} does not fit: {fault}")
        mine = self._tensor(self._own(update).vector)
        mask = self.owned(update.report.structure, update.report.rank)
        if len(mine) == len(mask):
            return Placed(mine, mask, len(mine))
        return Placed(torch.zeros_like(self.values).masked_scatter_(mask, mine), mask, len(mine))

    def misfit(self, update: Update) -> str | None:
        """What does not fit in the update of a device of its structure and rank: a name, a shape or a type; or None.

        Proposals of undecided deltas have no place here, and are not looked at.
        """
        own = self._own(update)
        wanted, found = self._shapes(update), {name: tensor.shape for name, tensor in named(own).items()}
        if wanted != found:
            odd = next(name for name in wanted | found if wanted.get(name) != found.get(name))
            return f"{odd} has shape {_shown(found.get(odd))}, expected {_shown(wanted.get(odd))}"
        for name, tensor in named(own).items():
            if tensor.dtype != np.float32:
                return f"{name} is {tensor.dtype}, expected float32"
        self._fitting = update
        return None

    def _shapes(self, update: Update) -> dict[str, tuple[int, ...]]:
        """The shapes that the tensors of ``update`` must have, by the names of :func:`named`."""
        report, known = update.report, self._shaped
        shapes: dict[str, tuple[int, ...]] = {}
        for name, (a, b) in device_shapes(known, report.structure, report.rank).items():
            shapes |= {f"{name} (a)": a, f"{name} (b)": b}
            if known.factors[name].gate is not None:
                shapes[f"{name} (gate)"] = (report.rank,)
        entries = owned_entries(known, report.structure, report.rank)
        shapes |= {f"{name} (delta)": (int(own.sum()),) for name, own in entries.items()}
        return shapes | {name: tensor.shape for name, tensor in (known.extra | known.head).items()}

    def _own(self, update: Update) -> Adapter:
        return _without_residual(update.adapter, deltas=bool(self._shaped.deltas))

    def adapter(self, values: torch.Tensor) -> Adapter:
        """The global adapter with these ``values``, float32 [n], and the residual and undecided deltas of before."""
        made = self._shaped.with_vector(values.cpu().numpy())
        return replace(made, residual=self.before.residual, deltas=made.deltas or self.before.deltas)

    def spread(self, table: torch.Tensor) -> torch.Tensor:
        """For every number, [n], the value that ``table``, [ranks, lines], has for its rank and unit."""
        places = self._levels.clamp(min=0).long() * self.lines + self._units
        return table.reshape(-1)[places]


def named(adapter: Adapter) -> dict[str, np.ndarray]:
    """All tensors but the residual, by names for people, in the order of the vector."""
    tensors: dict[str, np.ndarray] = {}
    for name, factors in adapter.factors.items():
        tensors |= {f"{name} ({part})": tensor for part, tensor in factors.parts().items()}
    tensors |= {f"{name} (delta)": delta.values for name, delta in adapter.deltas.items()}
    return tensors | adapter.extra | adapter.head


def _shown(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else str(list(shape))


def blocks(start: int, stop: int, device: torch.device) -> Iterator[slice]:
    """Slices of [start, stop), as long as ``device`` works fastest with."""
    size = _CPU_BLOCK if device.type == "cpu" else max(stop - start, 1)
    return (slice(at, min(at + size, stop)) for at in range(start, stop, size))


def _without_residual(adapter: Adapter, *, deltas: bool = True) -> Adapter:
    """The part of an adapter that devices train; deltas only if they are decided."""
    decided = adapter.deltas if deltas and not adapter.undecided else {}
    if not adapter.residual and len(decided) == len(adapter.deltas):
        return adapter
    return Adapter(adapter.factors, adapter.head, {}, decided, adapter.extra)


def _owners(adapter: Adapter, blueprint: Blueprint) -> tuple[np.ndarray, np.ndarray]:
    """Of every number its unit, int32 [n], and its rank from 0, int16 [n]; numbers of no unit have that after the last.

    Of a delta's entry, the unit of its row.
    """
    lines, none = blueprint.lines, blueprint.units
    units, levels = [], []

    def add(shape: tuple[int, ...], unit: np.ndarray | int, level: np.ndarray | int) -> None:
        units.append(np.broadcast_to(np.asarray(unit, np.int32), shape).ravel())
        levels.append(np.broadcast_to(np.asarray(level, np.int16), shape).ravel())

    for module, f in adapter.factors.items():
        ranks = np.arange(len(f.a))
        add(f.a.shape, lines.get((module, "in"), none), ranks[:, None])
        add(f.b.shape, np.reshape(lines.get((module, "out"), none), (-1, 1)), ranks)
        if f.gate is not None:
            add(f.gate.shape, none, ranks)
    for module, delta in adapter.deltas.items():
        if delta.indices is None:
            raise ValueError("a delta without its entries cannot be placed")
        rows = lines.get((module, "out"))
        unit = none if rows is None else rows[delta.indices // delta.shape[1]]
        add(delta.values.shape, unit, 0 if delta.levels is None else delta.levels.astype(np.int64) - 1)
    for tensor in (*adapter.extra.values(), *adapter.head.values()):
        add(tensor.shape, none, 0)
    return np.concatenate(units or [np.zeros(0, np.int32)]), np.concatenate(levels or [np.zeros(0, np.int16)])


def _delta_columns(adapter: Adapter, blueprint: Blueprint) -> list[tuple[slice, torch.Tensor]]:
    """Where the numbers of every delta with pruned columns lie, and the unit of each entry's column, int64."""
    at = sum(tensor.size for f in adapter.factors.values() for tensor in f.parts().values())
    found = []
    for module, delta in adapter.deltas.items():
        columns = blueprint.lines.get((module, "in"))
        if columns is not None and delta.indices is not None:
            units = torch.from_numpy(columns[delta.indices % delta.shape[1]])
            found.append((slice(at, at + delta.values.size), units))
        at += delta.values.size
    return found
