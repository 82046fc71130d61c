"""The process of one tracker that follows one run: it reads the store, and the run knows nothing of it.

Usage: ``python -m slimfed.platform.launch.tracking_process RUN HOME TRACKER``. The process ends when its standard input
is closed, with the run's last figures and its end state. Every call of the tool has a deadline. A failure is an event
of the run, once, and tried again every half a minute.
"""

import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from slimfed.clients.plain_text import clean
from slimfed.platform.home import run_folder, store_url
from slimfed.platform.integrations.following import Following, destination
from slimfed.platform.job.job import load_job
from slimfed.platform.launch.tracking import TOLD, report
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store
from slimfed.platform.trackers import make_tracker

CALL_SECONDS = 60.0
"""Longest call of a tool."""

_POLL_SECONDS = 1.0
_AGAIN_SECONDS = 30.0
_LONGEST_CAUSE = 300
_SECRET = re.compile(r"key|token|secret|password|credential", re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^/\s@]+@")

_log = logging.getLogger(__name__)


def main(run_id: str, home: Path, name: str) -> int:
    """Follow a run until standard input ends; 0, or ``TOLD`` if the tool failed at last."""
    with Store.open(store_url(load_job(run_folder(home, run_id).job)), home) as store:
        follower = Follower(store, run_id, name)
        ended = _end_of_input()
        while not ended.wait(_POLL_SECONDS):
            follower.step()
        return 0 if follower.finish() else TOLD


class Follower:
    """Steps of following a run by one tracker, with deadlines, and with a new start after a failure."""

    def __init__(
        self,
        store: Store,
        run_id: str,
        name: str,
        environment: Mapping[str, str] = os.environ,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._reader = store, Reader(store.engine)
        self._run_id, self._name, self._environment = run_id, name, environment
        self._now = now
        self._following: Following | None = None
        self._again = -float("inf")
        self._reported = False

    def step(self) -> bool:
        """Tell what is new; False after a failure, which is tried again after half a minute."""
        return self._now() >= self._again and self._try(self._catch_up)

    def finish(self) -> bool:
        """Tell what is new, and the end state; False after a failure."""
        return self._try(self._catch_up_and_end)

    def _try(self, work: Callable[[], object]) -> bool:
        try:
            with _deadline(CALL_SECONDS, self._give_up):
                work()
        except Exception as error:  # whatever a library raises, the run goes on
            _log.exception("%s failed", self._name)
            self._following, self._again = None, self._now() + _AGAIN_SECONDS
            self._report(f"{type(error).__name__}: {error}")
            return False
        self._reported = False
        return True

    def _catch_up(self) -> None:
        if self._following is None:
            where = destination(self._name, self._reader.find_run(self._run_id), self._environment)
            tracker = make_tracker(self._name, self._environment)
            self._following = Following(tracker, self._reader, self._run_id, where)
            _log.info("%s: %s", self._name, self._following.place)
        self._following.catch_up()

    def _catch_up_and_end(self) -> None:
        self._catch_up()
        if self._following is not None:
            self._following.end()

    def _report(self, cause: str) -> None:
        """An event for the first of several failures in a row."""
        if not self._reported:
            report(self._store, self._run_id, self._name, without_secrets(cause, self._environment))
        self._reported = True

    def _give_up(self) -> None:
        """End this process, since a call that hangs cannot be ended alone."""
        self._report(f"did not answer within {CALL_SECONDS:.0f} s and was ended")
        os._exit(TOLD)


def without_secrets(text: str, environment: Mapping[str, str]) -> str:
    """``text`` in a line, without users and passwords of addresses, and without values of variables that are secret."""
    for name, value in environment.items():
        if len(value) > 3 and _SECRET.search(name):
            text = text.replace(value, "***")
    return clean(_USER.sub("", text), _LONGEST_CAUSE)


@contextmanager
def _deadline(seconds: float, missed: Callable[[], object]) -> Iterator[None]:
    timer = threading.Timer(seconds, missed)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end_of_input() -> threading.Event:
    ended = threading.Event()

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    return ended


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
