"""A value over seeds: mean, spread, and number of runs with a value."""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Statistic:
    """The values of a group's runs. ``of``: number of runs; runs without a value are not in ``values``."""

    values: tuple[float, ...]
    of: int

    @staticmethod
    def over(values: Iterable[float | None]) -> "Statistic":
        """The statistic of one value for each run (None: no value)."""
        every = list(values)
        return Statistic(tuple(value for value in every if value is not None), len(every))

    @property
    def mean(self) -> float | None:
        """Mean of the runs with a value; None if there are none."""
        return math.fsum(self.values) / len(self.values) if self.values else None

    @property
    def spread(self) -> float | None:
        """Sample standard deviation (n - 1); None for fewer than two values."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def complete(self) -> bool:
        """True if every run has a value."""
        return len(self.values) == self.of
