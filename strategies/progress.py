"""Where a run is at this moment: what the server does, and how much of it is done. It is shown, and never recorded."""

import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from slimfed.clients.telemetry.meter import Amount, Meter

Phase = Literal[
    "preparing", "waiting", "planning", "training", "measuring", "aggregating", "evaluating", "generating", "recording"
]
"""What the server does, or waits for: its own start; nodes; the plan of a round; training on the devices; evaluation of
the devices' own models; the aggregate; evaluation of the global model, and what it writes for prompts; checkpoint and
store."""

TellAmount = Callable[[int, Collection[int]], Amount]
"""What nodes have done of the messages of a round with these first devices, before they reply."""


@dataclass(frozen=True)
class Moment:
    """``round``: the one under way, 0 before the first. ``devices``: of the round.

    ``trained``: devices that are trained, with the part of those under way where it is known. ``rows_done`` of ``rows``
    texts (or prompts) are evaluated; 0 of 0 outside an evaluation. ``seconds``: since the round, or the run's process,
    began.
    """

    phase: Phase
    round: int = 0
    devices: int = 0
    trained: float = 0.0
    rows_done: int = 0
    rows: int = 0
    seconds: float = 0.0


class RunProgress:
    """The state of a run, changed by the thread that computes it and read by any other (:meth:`now`).

    Nothing is kept for a device, so it costs the same for any size of the fleet.
    """

    def __init__(
        self, told: TellAmount = lambda _round, _firsts: Amount(), clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``told``: see :data:`TellAmount`; by default devices count when their node replies."""
        self._told = told
        self._clock = clock
        self._began = clock()
        self._lock = threading.Lock()
        self._phase: Phase = "preparing"
        self._round = 0
        self._devices = 0
        self._answered = 0
        self._open: set[int] = set()
        self._rows = 0
        self.meter = Meter()
        """Counts the server's own evaluation."""

    def begin(self, round: int, devices: int) -> None:
        """A round of ``devices`` devices begins."""
        with self._lock:
            self._phase, self._round, self._devices, self._answered = "planning", round, devices, 0
            self._open, self._began = set(), self._clock()
            self.meter.expect(0)

    def expect(self, devices: int) -> None:
        """So many devices take part in the round that has begun."""
        with self._lock:
            self._devices = devices

    def enter(self, phase: Phase) -> None:
        """The server does something else from now on."""
        with self._lock:
            self._phase = phase

    def send(self, firsts: Collection[int], absent: int = 0) -> None:
        """A round is sent, maybe again, in messages with these first devices; ``absent`` devices get none."""
        with self._lock:
            self._phase, self._open, self._answered, self._rows = "training", set(firsts), absent, 0

    def receive(self, first: int, devices: int) -> None:
        """The message to ``first`` and so many devices has its reply; one that is repeated counts once."""
        with self._lock, suppress(KeyError):
            self._open.remove(first)
            self._answered += devices

    def now(self) -> Moment:
        """The state at this moment."""
        with self._lock:
            phase, number, answered, waiting = self._phase, self._round, self._answered, tuple(self._open)
            seconds = self._clock() - self._began
        if phase == "training":
            there = self._told(number, waiting)
            trained = min(answered + there.trained, self._devices)
            measuring = trained >= self._devices and there.rows > 0
            if not measuring:
                return Moment(phase, number, self._devices, trained, seconds=seconds)
            self._rows = max(self._rows, there.rows)  # nodes that have replied tell no more
            done = self._rows - (there.rows - there.rows_done)
            return Moment("measuring", number, self._devices, trained, done, self._rows, seconds)
        trained = 0.0 if phase in ("preparing", "waiting", "planning") else float(self._devices)
        amount = self.meter.amount if phase == "evaluating" else Amount()
        phase = "generating" if amount.unit == "prompts" else phase
        return Moment(phase, number, self._devices, trained, amount.rows_done, amount.rows, seconds)
