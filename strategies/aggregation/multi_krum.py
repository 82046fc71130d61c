"""Multi-Krum: the mean of the updates with the closest neighbours."""

import math
from dataclasses import dataclass, field

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.update import Update
from slimfed.strategies.aggregation.base import AGGREGATIONS, PLAIN, Accumulation, Aggregator, Frame
from slimfed.strategies.aggregation.coverage import Coverage
from slimfed.strategies.aggregation.tensor_terms import Terms, terms

_FEWEST = 3


@AGGREGATIONS.register("multi-krum")
class MultiKrum(Aggregator):
    """The mean over the updates that have the closest neighbours.

    Multi-Krum (Blanchard et al., NeurIPS 2017, section 4) over unequal updates.

    Of n updates f = floor(share * n) may be malicious. An update's score is the sum of its squared distances to its n -
    f - 2 nearest others; the n - f updates with the lowest scores are averaged by coverage. Two devices are compared
    where both own a coordinate, by the mean square there, so that a different structure or rank alone causes no
    distance.
    """

    bounds_influence = True
    least_updates = 5  # a fifth of fewer is nobody

    def __init__(self, share: float = 0.2) -> None:
        if not 0 <= share < 0.5:
            raise ValueError(f"share = {share}: must be in [0, 0.5)")
        self.share = share

    def start(self, before: Adapter, frame: Frame = PLAIN) -> Accumulation:
        """An empty accumulation for a round that started from ``before``."""
        return _Candidates(before, self.share)


@dataclass
class _Candidates:
    """The updates of a round and their weights."""

    before: Adapter
    share: float
    updates: list[tuple[Update, int | None]] = field(default_factory=list)

    def add(self, update: Update, weight: int | None = None) -> None:
        """Keep one update."""
        self.updates.append((update, weight))

    def merge(self, other: "_Candidates") -> None:
        """Keep the updates of another accumulation."""
        self.updates += other.updates

    def result(self) -> Adapter:
        """The mean of the chosen updates, with their weights."""
        self.updates.sort(key=lambda pair: pair[0].device)
        chosen = Coverage().start(self.before)
        for index in choose(self.before, [update for update, _ in self.updates], self.share):
            chosen.add(*self.updates[index])
        return chosen.result()


def choose(before: Adapter, updates: list[Update], share: float) -> list[int]:
    """Positions of the updates that Multi-Krum keeps, ascending; all positions if there are fewer than three."""
    count = len(updates)
    if count < _FEWEST:
        return list(range(count))
    liars = math.floor(share * count + 1e-9)
    distances = _distances(before, updates)
    np.fill_diagonal(distances, np.inf)
    nearest = np.sort(distances, axis=1)[:, : max(1, count - liars - 2)]
    return sorted(np.argsort(nearest.sum(axis=1), kind="stable")[: count - liars].tolist())


def _distances(before: Adapter, updates: list[Update]) -> np.ndarray:
    """Mean square difference on the coordinates that both own, float64 [updates, updates]; infinite if there are none.

    With x zero where a device owns nothing and o its ownership (0 or 1): sum over shared of (x - y)^2 is
    x^2 . p + o . y^2 - 2 x . y, three matrix products a tensor.
    """
    count = len(updates)
    squares, shared = np.zeros((count, count)), np.zeros((count, count))
    for each in terms(before, updates):
        values, owned = _rows(each)
        cross = (values**2) @ owned.T
        squares += cross + cross.T - 2 * (values @ values.T)
        shared += owned @ owned.T
    return np.divide(np.maximum(squares, 0.0), shared, out=np.full((count, count), np.inf), where=shared > 0)


def _rows(each: Terms) -> tuple[np.ndarray, np.ndarray]:
    """What the updates changed in one tensor, and what they own of it: float64 [updates, coordinates] each."""
    count = len(each.parts)
    values, owned = np.zeros((2, count, *each.before.shape))
    for value, own, (part, where) in zip(values, owned, each.parts, strict=True):
        value[where] = part - each.before[where]
        own[where] = 1.0
    return values.reshape(count, -1), owned.reshape(count, -1)
