"""How much of a round is done, and how long the run will still take, by what the server has measured so far.

Before the first round ends, the time is that of the devices which are trained so far; a process's first round is left
out afterwards, as it includes set-up.
"""

from collections import deque
from dataclasses import dataclass
from statistics import median

from slimfed.strategies.progress import Moment

_REMEMBERED = 31
_LEAST = 1e-3
"""The least progress that a rate is taken from: sums of parts of devices differ in their last bits."""

_FULL = 0.98
"""The most of a round that counts as done before it has ended."""


@dataclass(frozen=True)
class Estimate:
    """``share``: part of the round that is done, in [0, 1]. ``seconds_left``: of the run; None if nothing is known."""

    share: float
    seconds_left: float | None


class TimeLeft:
    """Estimates from the moments that it is shown, one after another, each with the time of its observation."""

    def __init__(self, rounds: int, before: float | None = None) -> None:
        """``before``: seconds of a round in an earlier process of the run, until this one has measured something."""
        self._rounds = rounds
        self._before = before
        self._trains, self._evaluates = _Rate(), _Rate()
        self._began: tuple[int, float] | None = None
        self._first: int | None = None
        self._durations: deque[float] = deque(maxlen=_REMEMBERED)

    def estimate(self, moment: Moment, now: float) -> Estimate:
        """The estimate at ``now`` (seconds of any clock that only goes forward)."""
        self._observe(moment, now)
        if moment.round == 0:
            return Estimate(0.0, None)
        rest = self._rest(moment)
        usual = self._usual(moment)
        if rest is None or usual is None:
            return Estimate(_FULL * moment.trained / max(moment.devices, 1), None)
        share = moment.seconds / max(moment.seconds + rest, 1e-9)
        return Estimate(min(share, _FULL), rest + max(self._rounds - moment.round, 0) * usual)

    def _observe(self, moment: Moment, now: float) -> None:
        if moment.phase == "training":
            self._trains.observe(moment.round, moment.trained, now)
        if moment.rows:
            self._evaluates.observe((moment.round, moment.phase, moment.rows), moment.rows_done, now)
        if moment.round and (self._began is None or moment.round != self._began[0]):
            started = now - moment.seconds
            if self._first is None:
                self._first = moment.round
            elif self._began is not None and self._began[0] > self._first:
                self._durations.append((started - self._began[1]) / (moment.round - self._began[0]))
            self._began = moment.round, started

    def _usual(self, moment: Moment) -> float | None:
        """Seconds of a round."""
        if self._durations:
            return median(self._durations)
        return self._before if self._trains.seconds is None else self._trains.seconds * moment.devices

    def _rest(self, moment: Moment) -> float | None:
        """Seconds that the round still takes."""
        if moment.phase in ("measuring", "evaluating", "generating") and self._evaluates.seconds is not None:
            return self._evaluates.seconds * (moment.rows - moment.rows_done)
        usual = median(self._durations) if self._durations else self._before
        by_usual = None if usual is None else max(0.0, usual - moment.seconds)
        if moment.phase in ("waiting", "planning", "training") and self._trains.seconds is not None:
            training = self._trains.seconds * (moment.devices - moment.trained)
            return training if by_usual is None else max(training, by_usual)
        return by_usual if by_usual is not None or self._trains.seconds is None else 0.0


class _Rate:
    """Seconds of one unit of work, from the first amount that was done to the latest, so without set-up."""

    seconds: float | None = None

    def __init__(self) -> None:
        self._stretch: object = None
        self._start: tuple[float, float] | None = None

    def observe(self, stretch: object, done: float, now: float) -> None:
        """``done`` units of a stretch of work are done at ``now``."""
        if stretch != self._stretch:
            self._stretch, self._start = stretch, None
        if done <= 0:
            return
        if self._start is None:
            self._start = done, now
        elif done > self._start[0] + _LEAST:
            self.seconds = (now - self._start[1]) / (done - self._start[0])
