"""Weighted means of all numbers in global coordinates: the part that all averages of factors share."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.update import Update
from slimfed.strategies.aggregation.base import PLAIN, Frame

if TYPE_CHECKING:  # torch takes seconds to import, and every aggregation's class is loaded to list its name
    import torch

    from slimfed.strategies.coordinates.global_vector import GlobalVector
    from slimfed.strategies.coordinates.weights import Weights

Cover = Literal["owned", "all-ranks", "everything"]
"""Where a device's weight counts: on the numbers that it owns, on all ranks of its units, or on every number."""


class Means:
    """An accumulation of means per coordinate; all sums are exact, so that the order of the updates does not matter.

    With w_k the weight of device k, K(c) the devices that own coordinate c and C(c) those whose weight ``cover``
    spreads over it (default: the owners)::

        x(c) = sum_{k in K(c)} w_k x_k(c) / sum_{k in C(c)} w_k

    With ``recover`` the devices of C(c) that do not own c count with the value before the round instead of zero. A
    coordinate without owner keeps its previous value. Sparse deltas are means over the owners of an entry; head and
    extra tensors are means weighted by examples.
    """

    def __init__(
        self,
        before: Adapter,
        frame: Frame = PLAIN,
        *,
        cover: Cover = "owned",
        recover: bool = False,
        weigh: Callable[[Update], int] = lambda update: update.report.examples,
    ) -> None:
        self._before = before
        self._space = frame.space if frame.space is not None and frame.space.before is before else None
        self._cover: Cover = cover
        self._recover = recover
        self._weigh = weigh
        self._sums: _Sums | None = None

    def add(self, update: Update, weight: int | None = None) -> None:
        """Add one update. Raises ``ValueError`` if names, shapes, types or the weight do not fit."""
        report = update.report
        if self._space is None:
            from slimfed.strategies.coordinates.global_vector import GlobalVector

            self._space = GlobalVector(self._before, report.structure.blueprint)
        if self._sums is None:
            self._sums = _Sums(self._space)
        own = self._weigh(update) if weight is None else weight
        self._sums.add(update, own, report.examples if weight is None else weight, self._cover)

    def merge(self, other: "Means") -> None:
        """Add the terms of other means of the same round."""
        if other._sums is None:
            return
        self._space = self._space or other._space
        if self._sums is None:
            self._sums = _Sums(other._sums.space)
        self._sums.merge(other._sums)

    def result(self) -> Adapter:
        """Means where there are owners, previous values elsewhere."""
        if self._sums is None:
            return self._before
        return self._sums.space.adapter(self._sums.mean(recover=self._recover))


class _Sums:
    """The sum of every number over its owners, the owners' weight, and the weight that it is divided by."""

    def __init__(self, space: "GlobalVector") -> None:
        from slimfed.strategies.coordinates.exact_sum import ExactSum
        from slimfed.strategies.coordinates.weights import Weights

        self.space = space
        self._sum = ExactSum(len(space), space.device)
        self._owners, self._covered = Weights(space), Weights(space)
        self._shared = 0

    def add(self, update: Update, weight: int, shared_weight: int, cover: Cover) -> None:
        space, structure = self.space, update.report.structure
        placed = space.place(update)
        self._sum.add(placed.values[: space.shared], weight)
        self._sum.add(placed.values[space.shared :], shared_weight, space.shared)
        self._shared += shared_weight
        keep, rank = structure.keep, update.report.rank
        self._owners.add(weight, keep, rank, placed)
        if cover != "owned":
            self._covered.add(weight, np.ones_like(keep) if cover == "everything" else keep, space.ranks, placed)

    def merge(self, other: "_Sums") -> None:
        self._sum.merge(other._sum)
        self._owners.merge(other._owners)
        self._covered.merge(other._covered)
        self._shared += other._shared

    def mean(self, *, recover: bool) -> "torch.Tensor":
        """Float32 [n]."""
        import torch

        before, total = self.space.values, self._sum.value()
        owners = self._weight(self._owners)
        divisor = self._weight(self._covered) if self._covered else owners
        if recover:
            total += (divisor - owners) * before.double()
        return torch.where(owners > 0, (total / divisor).float(), before)

    def _weight(self, weights: "Weights") -> "torch.Tensor":
        """Float64 [n]."""
        found = weights.total()
        found[self.space.shared :] = self._shared
        return found


def head_only(update: Update) -> Update:
    """The update with its head alone: no factors, no deltas."""
    return replace(update, adapter=Adapter({}, update.adapter.head))
