"""Writing a run's progress to the store, at most once a second, by a thread of its own.

So the round never waits for it, and a phase in which the server is busy is shown, too.
"""

import logging
import math
import threading
import time
from datetime import UTC, datetime, timedelta
from types import TracebackType

from sqlalchemy.exc import SQLAlchemyError

from slimfed.platform.server.time_left import TimeLeft
from slimfed.platform.store.writer import Store
from slimfed.strategies.progress import Moment, RunProgress

EVERY_SECONDS = 1.0
_UNCHANGED_SECONDS = 10.0
_END_SECONDS = 60.0

_log = logging.getLogger(__name__)


class ProgressWriter:
    """Writes while its ``with`` block runs. A store that takes no writes costs the display and not the run."""

    def __init__(
        self, store: Store, run_id: str, progress: RunProgress, rounds: int, before: float | None = None
    ) -> None:
        """``before``: seconds of a round of the run in an earlier process, if it is resumed."""
        self._store = store
        self._run_id = run_id
        self._progress = progress
        self._left = TimeLeft(rounds, before)
        self._written: tuple[float, object] = (-math.inf, None)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name="progress", daemon=True)

    def __enter__(self) -> "ProgressWriter":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join(_END_SECONDS)

    def _work(self) -> None:
        while not self._end.wait(EVERY_SECONDS):
            try:
                self.write()
            except SQLAlchemyError as fault:
                _log.debug("run %s: its progress is not written: %s", self._run_id, fault)

    def write(self) -> None:
        """Write the progress now, unless it is as it was. Raises ``SQLAlchemyError``."""
        moment, now = self._progress.now(), time.monotonic()
        estimate = self._left.estimate(moment, now)
        signs = _signs(moment)
        if moment.phase == "preparing" or (signs == self._written[1] and now - self._written[0] < _UNCHANGED_SECONDS):
            return
        self._written = now, signs
        values = {
            "phase": moment.phase,
            "round": moment.round,
            "devices": moment.devices,
            "devices_done": math.floor(moment.trained + 1e-6),
            "rows": moment.rows,
            "rows_done": moment.rows_done,
            "share": estimate.share,
            "seconds_left": estimate.seconds_left,
            "began_at": datetime.now(UTC) - timedelta(seconds=moment.seconds),
        }
        self._store.write_progress(self._run_id, values)


def _signs(moment: Moment) -> object:
    """What makes a moment worth writing: all but the time, which readers count on by themselves."""
    return moment.phase, moment.round, moment.trained, moment.rows_done, moment.rows
