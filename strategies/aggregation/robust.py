"""Robust aggregation, coordinate by coordinate: the common part of trimmed mean and median."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.update import Update
from slimfed.strategies.aggregation.base import PLAIN, Accumulation, Aggregator, Frame
from slimfed.strategies.aggregation.tensor_terms import Terms, rebuilt

Reduce = Callable[[np.ndarray], np.ndarray]


class CoordinateWise(Aggregator):
    """Every coordinate is a robust centre of its owners' values; one without owner keeps its previous value.

    All devices have equal weight, because a malicious device could claim any number of examples. Memory grows with the
    number of updates, which are all needed at once.
    """

    bounds_influence = True

    @abstractmethod
    def centre(self, values: np.ndarray) -> np.ndarray:
        """Over the owners, float64 [owners, ...] -> [...]; NaN stands where a device owns nothing, never everywhere."""

    def start(self, before: Adapter, frame: Frame = PLAIN) -> Accumulation:
        """An empty accumulation for a round that started from ``before``."""
        return _Collected(before, self.centre)


@dataclass
class _Collected:
    """The updates of a round; the result takes them in the order of their devices."""

    before: Adapter
    centre: Reduce
    updates: list[Update] = field(default_factory=list)

    def add(self, update: Update, weight: int | None = None) -> None:
        """Keep one update; its weight is ignored."""
        self.updates.append(update)

    def merge(self, other: "_Collected") -> None:
        """Keep the updates of another accumulation."""
        self.updates += other.updates

    def result(self) -> Adapter:
        """The robust mean, computed tensor by tensor, so that only one tensor is expanded at a time."""
        updates = sorted(self.updates, key=lambda update: update.device)
        return rebuilt(self.before, updates, self._tensor) if updates else self.before

    def _tensor(self, terms: Terms) -> np.ndarray:
        """One tensor of the global adapter from its owners' parts of it, each at its place."""
        values = np.full((len(terms.parts), *terms.before.shape), np.nan)
        for row, (part, where) in zip(values, terms.parts, strict=True):
            if row[where].shape != part.shape:  # numpy would broadcast a rank-1 factor over all ranks
                raise ValueError(f"a part of shape {list(part.shape)} does not fit {list(row[where].shape)}")
            row[where] = part
        covered = ~np.isnan(values).all(axis=0)
        result = terms.before.copy()
        result[covered] = self.centre(values[:, covered]).astype(np.float32)
        return result
