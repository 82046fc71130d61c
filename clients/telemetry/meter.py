"""A meter of work under way: how many devices are trained and how many texts are evaluated."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Unit = Literal["texts", "prompts"]


@dataclass(frozen=True)
class Amount:
    """Work that is done. ``trained``: devices, with the part of those under way that is trained.

    ``rows``: texts (or prompts) that models are evaluated on, ``rows_done`` of which are done.
    """

    trained: float = 0.0
    rows_done: int = 0
    rows: int = 0
    unit: Unit = "texts"

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(
            self.trained + other.trained, self.rows_done + other.rows_done, self.rows + other.rows, other.unit
        )


def _to_nobody(_amount: Amount) -> None:
    return None


class Meter:
    """Counts work while it is done, and tells the amount at most twice a second.

    Work that is repeated because it failed is set back (:attr:`trained`, :attr:`rows_done`), so it counts once.
    """

    every_seconds = 0.5

    def __init__(
        self, tell: Callable[[Amount], object] = _to_nobody, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.trained = 0.0
        self.rows_done = 0
        self._rows = 0
        self._unit: Unit = "texts"
        self._tell = tell
        self._now = now
        self._told = now()

    @property
    def amount(self) -> Amount:
        """What is done so far."""
        return Amount(self.trained, self.rows_done, self._rows, self._unit)

    def train(self, devices: float) -> None:
        """Count so many devices as trained; a part of a device is a fraction."""
        self.trained += devices
        self._maybe_tell()

    def expect(self, rows: int, unit: Unit = "texts") -> None:
        """Begin an evaluation of so many rows; the count of rows starts again."""
        self.rows_done, self._rows, self._unit = 0, rows, unit
        self._maybe_tell()

    def evaluate(self, rows: int) -> None:
        """Count so many rows as evaluated."""
        self.rows_done += rows
        self._maybe_tell()

    def _maybe_tell(self) -> None:
        now = self._now()
        if now - self._told >= self.every_seconds:
            self._told = now
            self._tell(self.amount)
