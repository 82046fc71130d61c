"""R2SP: a device's missing coordinates take the value that was sent, then all devices are averaged."""

from typing import Any

import numpy as np

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.update import Update
from slimfed.strategies.aggregation.base import AGGREGATIONS, PLAIN, Accumulation, Aggregator, Frame
from slimfed.strategies.aggregation.coordinates import places
from slimfed.strategies.aggregation.exact import ExactSum
from slimfed.strategies.aggregation.means import Means, head_only
from slimfed.strategies.aggregation.weights import Weights


@AGGREGATIONS.register("r2sp")
class R2sp(Aggregator):
    """The mean of factors over all devices, with the value that was sent for missing coordinates.

    FedMP's residual recovery (Jiang et al., ICDE 2022), on factors.

    With w_k the examples of device k, K(c) the owners of coordinate c and x0 the global value before the round::

        x(c) = (sum_{k in K(c)} w_k x_k(c) + sum_{k not in K(c)} w_k x0(c)) / sum_k w_k

    No coordinate shrinks, but coordinates with few owners move slowly.
    """

    plain_factors_only = True

    def start(self, before: Adapter, frame: Frame = PLAIN) -> Accumulation:
        """An empty accumulation for a round that started from ``before``."""
        return _Recovered(before)


class _Recovered:
    """Sums over the owners, and their weight, per coordinate."""

    def __init__(self, before: Adapter) -> None:
        self._before = before
        self._parts = {
            module: {part: _Part(tensor) for part, tensor in f.parts().items()} for module, f in before.factors.items()
        }
        self._head = Means(Adapter({}, before.head))
        self._total = 0

    def add(self, update: Update, weight: int | None = None) -> None:
        """Add one update. Raises ``ValueError`` if it does not fit."""
        weight = update.report.examples if weight is None else weight
        self._head.add(head_only(update), weight)
        for module, place in places(self._before, update.report.structure, update.report.rank).items():
            for part, tensor in update.adapter.factors[module].parts().items():
                self._parts[module][part].add(tensor, weight, place.of(part))
        self._total += weight

    def merge(self, other: "_Recovered") -> None:
        """Add other sums."""
        self._head.merge(other._head)
        for module, parts in self._parts.items():
            for name, part in parts.items():
                part.merge(other._parts[module][name])
        self._total += other._total

    def result(self) -> Adapter:
        """The mean over all devices."""
        if not self._total:
            return self._before
        factors = {
            module: Factors(**{part: each.value(self._total) for part, each in parts.items()})
            for module, parts in self._parts.items()
        }
        return Adapter(factors, self._head.result().head, self._before.residual)


class _Part:
    """One tensor of a module."""

    def __init__(self, before: np.ndarray) -> None:
        self._before = before
        self._sum = ExactSum(before.shape)
        self._owners = Weights(before.shape)

    def add(self, values: np.ndarray, weight: int, where: Any) -> None:
        self._sum.add(values, weight, where)
        self._owners.add(weight, where)

    def merge(self, other: "_Part") -> None:
        self._sum.merge(other._sum)
        self._owners.merge(other._owners)

    def value(self, total: int) -> np.ndarray:
        owners = self._owners.total()
        recovered = (total - owners) * self._before.astype(np.float64)
        mean = (self._sum.value() + recovered) / total
        return np.where(owners > 0, mean.astype(np.float32), self._before)
