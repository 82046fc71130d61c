"""The running sums of a round's updates, so that no more than a few of them are held at a time."""

from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np
import torch

from slimfed.clients.adapter import Adapter
from slimfed.clients.update import Update
from slimfed.strategies.aggregation import Accumulation
from slimfed.strategies.aggregation.trimmed_mean import TrimmedMean
from slimfed.strategies.coordinates.exact_sum import ExactSum

# So many updates of one grade are kept whole: for fewer it does not pay to make sums of the adapter's size.
_FEW = 8
# The grades of nearly all updates, which are summed from the first on.
_USUAL = (0, 0)


class Collector(Protocol):
    """What accepted updates are added to, in any order."""

    def add(self, update: Update) -> None:
        """Add one accepted update."""
        ...

    def merge(self, other: Self) -> None:
        """Add the contents of another one of the same kind and round."""
        ...


class RoundAccumulator:
    """The aggregation of some updates so far, the sum of their scores, and a part of some devices' updates.

    All sums are exact: the result does not depend on the order of the updates, nor on the accumulator that they were
    added to.
    """

    def __init__(
        self,
        accumulation: Accumulation,
        units: int,
        keep: Container[int],
        part: Callable[[Update], Update] = lambda update: update,
        *,
        robust: bool = False,
    ) -> None:
        """``units``: length of the scores. ``keep``: devices of whose updates a ``part`` is kept.

        ``robust``: the mean of the scores leaves out the highest and lowest fifth of each unit, so that few devices do
        not decide what all prune; for that the scores of all devices are kept.
        """
        self._accumulation = accumulation
        self._scores = ExactSum(units)
        self._robust = robust
        self._each: dict[int, np.ndarray] = {}
        self._part = part
        self._scored = 0
        self._measured: dict[int, np.ndarray] = {}
        self._keep = keep
        self._kept: list[Update] = []

    def add(self, update: Update) -> None:
        """Add one accepted update."""
        self._accumulation.add(update)
        if update.scores.any():
            self._scores.add(torch.tensor(update.scores), 1)
            self._scored += 1
            if self._robust:
                self._each[update.device] = update.scores.copy()
        if update.measured is not None:
            self._measured[update.device] = update.measured.copy()
        if update.device in self._keep:
            self._kept.append(self._part(update))

    def merge(self, other: "RoundAccumulator") -> None:
        """Add the contents of another accumulator of the same round."""
        self._accumulation.merge(other._accumulation)
        self._scores.merge(other._scores)
        self._scored += other._scored
        self._kept += other._kept
        self._each |= other._each
        self._measured |= other._measured

    def aggregate(self) -> Adapter:
        """The aggregated adapter: all coordinates, largest rank."""
        return self._accumulation.result()

    def scores(self) -> tuple[np.ndarray, int]:
        """The sum of the scores, float64 [units], and the number of devices that have scored anything.

        If the mean is robust, its multiple by this number.
        """
        if self._each:
            rows = np.stack([self._each[device] for device in sorted(self._each)]).astype(np.float64)
            return TrimmedMean().centre(rows) * len(rows), len(rows)
        return self._scores.value().numpy(), self._scored

    def measured(self) -> np.ndarray | None:
        """The sum of what devices measured for the layers' shares, float64 [1 + blocks]; None if none did.

        Added in the order of the devices.
        """
        if not self._measured:
            return None
        return np.stack([self._measured[device] for device in sorted(self._measured)]).sum(0)

    def kept_updates(self) -> list[Update]:
        """What was kept of the chosen devices' updates, in device order."""
        return sorted(self._kept, key=lambda update: update.device)


@dataclass
class GradedAccumulators:
    """One collector for the updates of each grade of size (``outliers.Grades``).

    The accepted grades are known only after the last update. Sums by grade avoid keeping the updates until then.
    ``new`` makes an empty collector, such as a :class:`RoundAccumulator`.
    """

    new: Callable[[], Collector]
    _few: dict[tuple[int, int], list[Update]] = field(default_factory=dict)
    _many: dict[tuple[int, int], Collector] = field(default_factory=dict)

    def add(self, update: Update, grades: tuple[int, int]) -> None:
        """Add one update of these ``grades``. The first few updates of an unusual grade are kept whole."""
        if grades == _USUAL and grades not in self._many:
            self._many[grades] = self.new()
        if grades in self._many:
            self._many[grades].add(update)
            return
        few = self._few.setdefault(grades, [])
        few.append(update)
        if len(few) > _FEW:
            accumulator = self._many[grades] = self.new()
            for each in self._few.pop(grades):
                accumulator.add(each)

    def merged(self, highest: tuple[int, int]) -> Collector:
        """All updates whose grades do not exceed ``highest``, in one collector. This object is empty afterwards."""
        whole: Collector | None = None
        for grades, accumulator in self._many.items():
            if _within(grades, highest):
                if whole is None:
                    whole = accumulator
                else:
                    whole.merge(accumulator)
        whole = whole or self.new()
        for grades, few in self._few.items():
            if _within(grades, highest):
                for update in few:
                    whole.add(update)
        self._few, self._many = {}, {}
        return whole


def _within(grades: tuple[int, int], highest: tuple[int, int]) -> bool:
    return grades[0] <= highest[0] and grades[1] <= highest[1]
