"""The exact weighted mean of the devices' products b @ a, as a product of two stacks: never [out, in]."""

from collections.abc import Sequence

import numpy as np

from slimfed.clients.update import Adapter, Update
from slimfed.strategies.aggregation.coordinates import Place, places

Member = tuple[Update, int]
_ALL = slice(None)


class Members:
    """The updates of a round with their weights, in the order of their devices, whatever order they came in."""

    def __init__(self, before: Adapter) -> None:
        self.before = before
        self._members: list[Member] = []

    def add(self, update: Update, weight: int | None = None) -> None:
        """Refer to one more update."""
        self._members.append((update, update.examples if weight is None else weight))

    def merge(self, other: "Members") -> None:
        """Refer to other members, too."""
        self._members += other._members

    def __bool__(self) -> bool:
        return bool(self._members)

    def ordered(self) -> list[Member]:
        """By device."""
        return sorted(self._members, key=lambda member: member[0].device)


def mean_products(before: Adapter, members: Sequence[Member]) -> dict[str, "Stack"]:
    """The mean of every module, where each entry of the product is the mean over the devices that own it.

    With w_k the weights and K(o, i) the devices that have row o and column i::

        M[o, i] = sum_{k in K(o, i)} w_k (b_k a_k)[o, i] / sum_{k in K(o, i)} w_k

    and the product before the round where K is empty. Without pruning this is sum p_k b_k a_k. Raises ``ValueError``
    for a module that is cut on both sides, whose mean is no product of stacks.
    """
    located = [places(before, update.structure, update.rank) for update, _ in members]
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
        """[out, R]: the devices' b side by side, weighted by row if rows are cut; then b before where nobody owns."""
        parts = []
        for factors, place, weight in self._parts:
            part = np.zeros((self.shape[0], factors.b.shape[1]))
            part[place.rows] = factors.b
            parts.append(part * self._shares(weight)[:, None] if self._by_rows else part)
        old = self._old.b.astype(np.float64)
        parts.append(np.where(self._orphans()[:, None], old, 0.0) if self._by_rows else old)
        return np.concatenate(parts, axis=1)

    def right(self) -> np.ndarray:
        """[R, in]: the devices' a one below the other, weighted by column unless rows are cut."""
        parts = []
        for factors, place, weight in self._parts:
            part = np.zeros((len(factors.a), self.shape[1]))
            part[:, place.columns] = factors.a
            parts.append(part if self._by_rows else part * self._shares(weight))
        old = self._old.a.astype(np.float64)
        parts.append(old if self._by_rows else np.where(self._orphans(), old, 0.0))
        return np.concatenate(parts)

    def _shares(self, weight: int) -> np.ndarray:
        return weight / np.maximum(self._weights, weight)

    def _orphans(self) -> np.ndarray:
        return self._weights == 0
