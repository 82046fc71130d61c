"""Weighted means of factors and head in global coordinates: the part that all averages of factors share."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.update import Update
from slimfed.strategies.aggregation.coordinates import Place, owned_entries, places
from slimfed.strategies.aggregation.exact import ExactSum
from slimfed.strategies.aggregation.weights import Weights

Index = Any
Cover = Callable[[Place, str], Index]
"""Where in a part ("a", "b", "gate") of a module the weight of a device at this place counts, had or not."""


class Means:
    """An accumulation of means per coordinate; all sums are exact, so that the order of the updates does not matter.

    With w_k the weight of device k, K(c) the devices that own coordinate c and C(c) those whose place ``cover`` spreads
    over it (default: the owners)::

        x(c) = sum_{k in K(c)} w_k x_k(c) / sum_{k in C(c)} w_k

    A coordinate without owner keeps its previous value. Sparse deltas are means over the
    owners of an entry; head and extra tensors are means weighted by examples.
    """

    def __init__(
        self,
        before: Adapter,
        cover: Cover | None = None,
        weigh: Callable[[Update], int] = lambda update: update.report.examples,
    ) -> None:
        self._before = before
        self._cover = cover
        self._weigh = weigh
        self._factors = {
            module: {part: Mean(tensor, apart=cover is not None) for part, tensor in f.parts().items()}
            for module, f in before.factors.items()
        }
        self._deltas = {module: Mean(delta.values) for module, delta in before.deltas.items()}
        self._whole = {part: {n: Mean(t) for n, t in getattr(before, part).items()} for part in ("extra", "head")}

    def add(self, update: Update, weight: int | None = None) -> None:
        """Scatter one update. Raises ``ValueError`` if names, shapes, types or the weight do not fit."""
        adapter, report = update.adapter, update.report
        if adapter.factors.keys() != self._factors.keys() or any(
            getattr(adapter, part).keys() != means.keys() for part, means in self._whole.items()
        ):
            raise ValueError(f"the update of device {update.device} has other modules than the global adapter")
        factor_weight = self._weigh(update) if weight is None else weight
        for module, place in places(self._before, report.structure, report.rank).items():
            parts = adapter.factors[module].parts()
            if parts.keys() != self._factors[module].keys():
                raise ValueError(f"the update of device {update.device} has other parts of {module} than it was sent")
            for part, tensor in parts.items():
                covered = self._cover and self._cover(place, part)
                self._factors[module][part].add(tensor, factor_weight, place.of(part), covered)
        entries = {} if self._before.undecided else owned_entries(self._before, report.structure, report.rank)
        for module, own in entries.items():
            self._deltas[module].add(adapter.deltas[module].values, factor_weight, own)
        for part, means in self._whole.items():
            for name, tensor in getattr(adapter, part).items():
                means[name].add(tensor, report.examples if weight is None else weight, ...)

    def merge(self, other: "Means") -> None:
        """Add the terms of other means of the same round."""
        for mine, theirs in zip(self._every(), other._every(), strict=True):
            mine.merge(theirs)

    def _every(self) -> list["Mean"]:
        """All means, in one order."""
        parts = [*self._factors.values(), *self._whole.values()]
        return [mean for part in parts for mean in part.values()] + list(self._deltas.values())

    def result(self) -> Adapter:
        """Means where there are owners, previous values elsewhere."""
        factors = {
            module: Factors(**{part: mean.value() for part, mean in parts.items()})
            for module, parts in self._factors.items()
        }
        whole = {part: {name: mean.value() for name, mean in means.items()} for part, means in self._whole.items()}
        deltas = {
            module: replace(delta, values=self._deltas[module].value()) for module, delta in self._before.deltas.items()
        }
        return replace(self._before, factors=factors, deltas=deltas, **whole)


class Mean:
    """A weighted mean per coordinate of one tensor. ``apart``: weights fall elsewhere than the terms they belong to."""

    def __init__(self, before: np.ndarray, *, apart: bool = False) -> None:
        self._before = before
        self._sum = ExactSum(before.shape)
        self._owners = Weights(before.shape)
        self._covered = Weights(before.shape) if apart else None

    def add(self, values: np.ndarray, weight: int, where: Index, covered: Index = None) -> None:
        """Add ``values`` at the index ``where``, and their weight there, or at the index ``covered``."""
        self._sum.add(values, weight, where)
        self._owners.add(weight, where)
        if self._covered is not None:
            self._covered.add(weight, covered)

    def merge(self, other: "Mean") -> None:
        """Add the terms of another mean of the same tensor."""
        self._sum.merge(other._sum)
        self._owners.merge(other._owners)
        if self._covered is not None:
            assert other._covered is not None, "means of one round are covered alike"
            self._covered.merge(other._covered)

    def value(self) -> np.ndarray:
        """The mean, float32; the value before where no term fell."""
        owners = self._owners.total()
        weight = owners if self._covered is None else self._covered.total()
        mean = np.divide(self._sum.value(), weight, out=np.zeros(self._before.shape), where=owners > 0)
        return np.where(owners > 0, mean.astype(np.float32), self._before)


def head_only(update: Update) -> Update:
    """The update with its head alone: no factors, no deltas."""
    return replace(update, adapter=Adapter({}, update.adapter.head))
