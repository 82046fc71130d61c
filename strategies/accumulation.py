"""What a round's updates add up to, so that no more than a few of them are held at a time."""

from collections.abc import Callable, Container
from dataclasses import dataclass, field

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.update import Update
from slimfed.strategies.aggregation import Accumulation
from slimfed.strategies.aggregation.exact import ExactSum

# So many updates of one kind are kept as they are: for fewer it does not pay to make sums of the adapter's size.
_FEW = 8


class Harvest:
    """The aggregation of some updates on its way, the sum of their scores, and those that are kept as they are.

    All sums are exact: neither the order of the updates nor the harvest that each of them went to makes a difference.
    ``units``: length of the scores; ``keep``: the devices whose updates are kept.
    """

    def __init__(self, accumulation: Accumulation, units: int, keep: Container[int]) -> None:
        self._accumulation = accumulation
        self._scores = ExactSum((units,))
        self._scored = 0
        self._keep = keep
        self._kept: list[Update] = []

    def add(self, update: Update) -> None:
        """Take in one fit update."""
        self._accumulation.add(update)
        if update.scores.any():
            self._scores.add(update.scores, 1)
            self._scored += 1
        if update.device in self._keep:
            self._kept.append(update)

    def merge(self, other: "Harvest") -> None:
        """Take in all that another harvest of the round has."""
        self._accumulation.merge(other._accumulation)
        self._scores.merge(other._scores)
        self._scored += other._scored
        self._kept += other._kept

    def adapter(self) -> Adapter:
        """The aggregate."""
        return self._accumulation.result()

    def scores(self) -> tuple[np.ndarray, int]:
        """The sum of the scores, float64 [units], and of how many devices: of those that have scored anything."""
        return self._scores.value(), self._scored

    def kept(self) -> list[Update]:
        """The updates that were kept, in device order."""
        return sorted(self._kept, key=lambda update: update.device)


@dataclass
class Sieve:
    """Harvests of updates of one grade each, until the fleet's bounds say which grades count (``fitness.Grades``)."""

    new: Callable[[], Harvest]
    _few: dict[tuple[int, int], list[Update]] = field(default_factory=dict)
    _many: dict[tuple[int, int], Harvest] = field(default_factory=dict)

    def add(self, update: Update, grades: tuple[int, int]) -> None:
        """Take in one update; what it is made of is not held, except of the first few of its grade."""
        if grades in self._many:
            self._many[grades].add(update)
            return
        few = self._few.setdefault(grades, [])
        few.append(update)
        if len(few) > _FEW:
            harvest = self._many[grades] = self.new()
            for each in self._few.pop(grades):
                harvest.add(each)

    def passed(self, highest: tuple[int, int]) -> Harvest:
        """All that does not exceed the ``highest`` grades, in one harvest. The sieve is empty then."""
        whole: Harvest | None = None
        for grades, harvest in self._many.items():
            if _within(grades, highest):
                if whole is None:
                    whole = harvest
                else:
                    whole.merge(harvest)
        whole = whole or self.new()
        for grades, few in self._few.items():
            if _within(grades, highest):
                for update in few:
                    whole.add(update)
        self._few, self._many = {}, {}
        return whole


def _within(grades: tuple[int, int], highest: tuple[int, int]) -> bool:
    return grades[0] <= highest[0] and grades[1] <= highest[1]
