"""Coverage-normalised averaging: every coordinate is the mean over the devices that own it."""

from dataclasses import replace
from typing import Any

import numpy as np

from slimfed.clients.update import Adapter, Factors, Update
from slimfed.strategies.aggregation.base import Accumulation, Aggregator
from slimfed.strategies.aggregation.coordinates import owned_entries, places
from slimfed.strategies.aggregation.exact import ExactSum


class Coverage(Aggregator):
    """Factors of unequal rank and structure are scattered to global coordinates and divided by their owners' weight.

    With w_k the examples of device k and K(c) the devices that still have coordinate c (its row, column and rank)::

        x(c) = sum_{k in K(c)} w_k x_k(c) / sum_{k in K(c)} w_k

    A coordinate without owner keeps its previous value, so that neither pruning nor a low rank shrinks what others
    learnt (zero-filling would, as in HetLoRA's padding). Head tensors, which all devices own, are plain weighted means.
    The factors are averaged, not their products: mean(b) mean(a) is not mean(b a), as in FedIT.
    """

    def start(self, before: Adapter) -> Accumulation:
        """Begin a round."""
        return _CoverageSum(before)


class _CoverageSum:
    """Sums and weights per coordinate; all of them exact, so that the order of the updates does not matter."""

    def __init__(self, before: Adapter) -> None:
        self._before = before
        self._factors = {
            module: {part: _Mean(tensor) for part, tensor in f.parts().items()} for module, f in before.factors.items()
        }
        self._deltas = {module: _Mean(delta.values) for module, delta in before.deltas.items()}
        self._whole = {part: {n: _Mean(t) for n, t in getattr(before, part).items()} for part in ("extra", "head")}

    def add(self, update: Update, weight: int | None = None) -> None:
        """Scatter one update. Raises ``ValueError`` if names, shapes, types or the weight do not fit."""
        adapter = update.adapter
        if adapter.factors.keys() != self._factors.keys() or any(
            getattr(adapter, part).keys() != means.keys() for part, means in self._whole.items()
        ):
            raise ValueError(f"the update of device {update.device} has other modules than the global adapter")
        weight = update.examples if weight is None else weight
        for module, place in places(self._before, update.structure, update.rank).items():
            parts = adapter.factors[module].parts()
            if parts.keys() != self._factors[module].keys():
                raise ValueError(f"the update of device {update.device} has other parts of {module} than it was sent")
            for part, tensor in parts.items():
                self._factors[module][part].add(tensor, weight, place.of(part))
        entries = {} if self._before.undecided else owned_entries(self._before, update.structure, update.rank)
        for module, own in entries.items():
            self._deltas[module].add(adapter.deltas[module].values, weight, own)
        for part, means in self._whole.items():
            for name, tensor in getattr(adapter, part).items():
                means[name].add(tensor, weight, ...)

    def result(self) -> Adapter:
        """Weighted means where there are owners, previous values elsewhere."""
        factors = {
            module: Factors(**{part: mean.value() for part, mean in parts.items()})
            for module, parts in self._factors.items()
        }
        whole = {part: {name: mean.value() for name, mean in means.items()} for part, means in self._whole.items()}
        deltas = {
            module: replace(delta, values=self._deltas[module].value()) for module, delta in self._before.deltas.items()
        }
        return replace(self._before, factors=factors, deltas=deltas, **whole)


class _Mean:
    """A weighted mean per coordinate of one tensor, over the terms that cover it."""

    def __init__(self, before: np.ndarray) -> None:
        self._before = before
        self._sum = ExactSum(before.shape)
        self._weight = np.zeros(before.shape, dtype=np.int64)

    def add(self, values: np.ndarray, weight: int, where: Any) -> None:
        self._sum.add(values, weight, where)
        self._weight[where] += weight

    def value(self) -> np.ndarray:
        covered = self._weight > 0
        mean = np.divide(self._sum.value(), self._weight, out=np.zeros(self._before.shape), where=covered)
        return np.where(covered, mean.astype(np.float32), self._before)
