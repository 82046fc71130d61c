"""The tensors of a round one after another: the global one, and each device's part of it with its place."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.update import Update
from slimfed.strategies.coordinates.places import owned_entries, places


@dataclass(frozen=True)
class Terms:
    """One tensor of the global adapter, and the devices' parts of it with their indices; a part may be empty."""

    key: tuple[str, ...]
    before: np.ndarray
    parts: tuple[tuple[np.ndarray, Any], ...]


def terms(before: Adapter, updates: Sequence[Update]) -> Iterator[Terms]:
    """All tensors of ``before`` in order, with the parts in the order of ``updates``."""
    where = [places(before, update.report.structure, update.report.rank) for update in updates]
    pairs = list(zip(updates, where, strict=True))
    for module, factors in before.factors.items():
        for part, tensor in factors.parts().items():
            own = tuple((u.adapter.factors[module].parts()[part], w[module].of(part)) for u, w in pairs)
            yield Terms(("factors", module, part), tensor, own)
    if not before.undecided:
        entries = [owned_entries(before, update.report.structure, update.report.rank) for update in updates]
        for module, delta in before.deltas.items():
            chosen = zip(updates, entries, strict=True)
            yield Terms(
                ("deltas", module), delta.values, tuple((u.adapter.deltas[module].values, e[module]) for u, e in chosen)
            )
    for kind in ("extra", "head"):
        for name, tensor in getattr(before, kind).items():
            yield Terms((kind, name), tensor, tuple((getattr(u.adapter, kind)[name], ...) for u in updates))


def rebuilt(before: Adapter, updates: Sequence[Update], new: Callable[[Terms], np.ndarray]) -> Adapter:
    """``before`` with every tensor as ``new`` makes it, one at a time."""
    made = {each.key: new(each) for each in terms(before, updates)}
    factors = {
        module: Factors(**{part: made["factors", module, part] for part in f.parts()})
        for module, f in before.factors.items()
    }
    deltas = {
        module: replace(delta, values=made.get(("deltas", module), delta.values))
        for module, delta in before.deltas.items()
    }
    whole = {kind: {name: made[kind, name] for name in getattr(before, kind)} for kind in ("extra", "head")}
    return Adapter(factors, whole["head"], before.residual, deltas, whole["extra"])
