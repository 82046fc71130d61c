"""The exact weighted mean of the devices' products b @ a, as a product of two stacks, without forming [out, in]."""

from collections.abc import Iterator, Sequence

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.update import Update
from slimfed.strategies.coordinates.places import Place, places

Member = tuple[Update, int]
_ALL = slice(None)


class Members:
    """The updates of a round with their weights, in the order of their devices."""

    def __init__(self, before: Adapter) -> None:
        self.before = before
        self._members: list[Member] = []

    def add(self, update: Update, weight: int | None = None) -> None:
        """Keep a reference to one more update."""
        self._members.append((update, update.report.examples if weight is None else weight))

    def merge(self, other: "Members") -> None:
        """Add the references of the other accumulation."""
        self._members += other._members

    def __bool__(self) -> bool:
        return bool(self._members)

    def ordered(self) -> list[Member]:
        """Updates and weights, in device order."""
        return sorted(self._members, key=lambda member: member[0].device)


def mean_products(before: Adapter, members: Sequence[Member]) -> dict[str, "Stack"]:
    """The mean of every module, where each entry of the product is the mean over the devices that own it.

    With w_k the weights and K(o, i) the devices that have row o and column i::

        M[o, i] = sum_{k in K(o, i)} w_k (b_k a_k)[o, i] / sum_{k in K(o, i)} w_k

    and the product before the round where K is empty. Without pruning this is sum p_k b_k a_k. Raises ``ValueError``
    for a module that is cut on both sides, whose mean is no product of stacks.
    """
    located = [places(before, update.report.structure, update.report.rank) for update, _ in members]
    return {module: Stack(module, before, members, [part[module] for part in located]) for module in before.factors}


class Stack:
    """One module's mean as ``left`` [out, R] @ ``right`` [R, in], float64; R is the sum of the devices' ranks."""

    def __init__(self, module: str, before: Adapter, members: Sequence[Member], located: Sequence[Place]) -> None:
        factors = before.factors[module]
        self.shape = len(factors.b), factors.a.shape[1]
        self._old = factors
        self._parts = [
            (update.adapter.factors[module], place, weight)
            for (update, weight), place in zip(members, located, strict=True)
        ]
        row_weights, column_weights = (np.zeros(size) for size in self.shape)
        for _, place, weight in self._parts:
            row_weights[place.rows] += weight
            column_weights[place.columns] += weight
        total = sum(weight for _, weight in members)
        if (row_weights != total).any() and (column_weights != total).any():
            raise ValueError(f"{module} is cut on both sides; its products cannot be averaged as stacks")
        self._by_rows = bool((row_weights != total).any())
        self._weights = row_weights if self._by_rows else column_weights

    def left(self) -> np.ndarray:
        """[out, R]: the devices' b side by side, weighted by row if rows are cut; then b before, for unowned
        entries."""
        whole = np.zeros((self.shape[0], self._depth))
        for columns, (factors, place, weight) in zip(self._ranks(), self._parts, strict=True):
            share = self._shares(weight)[place.rows, None] if self._by_rows else 1.0
            whole[place.rows, columns] = factors.b * share
        old = self._old.b
        whole[:, self._depth - old.shape[1] :] = np.where(self._orphans()[:, None], old, 0.0) if self._by_rows else old
        return whole

    def right(self) -> np.ndarray:
        """[R, in]: the devices' a one below the other, weighted by column unless rows are cut."""
        whole = np.zeros((self._depth, self.shape[1]))
        for rows, (factors, place, weight) in zip(self._ranks(), self._parts, strict=True):
            share = 1.0 if self._by_rows else self._shares(weight)[place.columns]
            whole[rows, place.columns] = factors.a * share
        old = self._old.a
        whole[self._depth - len(old) :] = old if self._by_rows else np.where(self._orphans(), old, 0.0)
        return whole

    def times(self, directions: np.ndarray) -> np.ndarray:
        """``left @ right @ directions``, float64 [out, some], without the stacks."""
        old, orphans = self._old, self._orphans()
        weights = np.maximum(self._weights, 1)[:, None]
        total = np.zeros((self.shape[0], directions.shape[1]))
        shared = directions if self._by_rows else directions / weights
        for factors, place, weight in self._parts:
            total[place.rows] += weight * (factors.b @ (factors.a @ shared[place.columns]))
        if self._by_rows:
            return np.where(orphans[:, None], old.b @ (old.a @ directions), total / weights)
        return total + old.b @ (old.a[:, orphans] @ directions[orphans]) if orphans.any() else total

    @property
    def _depth(self) -> int:
        """R, the devices' ranks and that of the adapter before."""
        return sum(len(factors.a) for factors, _, _ in self._parts) + len(self._old.a)

    def _ranks(self) -> Iterator[slice]:
        """Where each device's ranks stand among all."""
        start = 0
        for factors, _, _ in self._parts:
            yield slice(start, start + len(factors.a))
            start += len(factors.a)

    def _shares(self, weight: int) -> np.ndarray:
        return weight / np.maximum(self._weights, weight)

    def _orphans(self) -> np.ndarray:
        return self._weights == 0
