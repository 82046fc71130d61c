"""The launcher: starts the run's process, or submits the run to a SuperLink, watches it, and ends all processes.

The ServerApp does the work and writes the store; the launcher only watches. It sets the status failed or stopped if the
ServerApp can no longer do so.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal, Protocol

from slimfed.platform.launch.federation import Federation
from slimfed.platform.launch.flwr_cli import LaunchError
from slimfed.platform.launch.simulation import Simulation
from slimfed.platform.launch.workers import Sizing

_log = logging.getLogger(__name__)

FinalStatus = Literal["done", "failed", "stopped"]
Ending = tuple[FinalStatus, str]

FINAL: tuple[FinalStatus, ...] = ("done", "failed", "stopped")

_POLL_SECONDS = 0.25
_HEALTH_SECONDS = 2.0
_START_SECONDS = 180.0
_STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Look:
    """The state of a run in the store.

    ``began``: the server is running; ``stopping``: a stop was requested; ``rounds_done``: recorded rounds.
    """

    status: str
    began: bool
    stopping: bool
    rounds_done: int = 0

    @property
    def final(self) -> FinalStatus | None:
        """The status if it is final, else None."""
        return next((status for status in FINAL if status == self.status), None)


class Journal(Protocol):
    """The launcher's interface to one run in the store."""

    def look(self) -> Look:
        """The current state of the run; called a few times a second, so it can also show progress."""
        ...

    def request_stop(self) -> None:
        """Ask the ServerApp to stop; it abandons the round."""
        ...

    def finish(self, status: FinalStatus, cause: str) -> None:
        """Set a final status with its cause."""
        ...


class Runtime(Protocol):
    """The launcher's interface to what computes a run."""

    def ailment(self) -> str | None:
        """Why the run can no longer end by itself; None while all is well."""
        ...

    def last_words(self) -> str:
        """The end of its log, in one line."""
        ...


@dataclass(frozen=True)
class LaunchPlan:
    """The paths and settings of a launch; ``folder`` is the run's folder.

    ``federation`` names the SuperLink of real devices that the run is submitted to; None: simulated devices.
    """

    run: str
    home: Path
    folder: Path
    sizing: Sizing
    federation: str | None = None

    @property
    def logs(self) -> Path:
        """Folder of the run's logs: server.log, simulation.log, and app.log if the ServerApp of real devices died."""
        return self.folder / "logs"


@dataclass(frozen=True)
class Outcome:
    """The final status of a run, and whether a signal interrupted it."""

    status: FinalStatus
    interrupted: bool


def launch(
    plan: LaunchPlan,
    journal: Journal,
    environment: Mapping[str, str] | None = None,
    stop: "StopSignals | None" = None,
) -> Outcome:
    """Run the job to its end; the journal has the cause if the status is not "done".

    A first SIGINT or SIGTERM asks the run to stop and waits for it, up to 20 s; a second one ends it at once. When this
    function returns no process of the run is left. A caller of several runs handles the signals (:func:`stop_signals`)
    and passes them as ``stop``.
    """
    status: FinalStatus
    with nullcontext(stop) if stop is not None else stop_signals() as stop:
        try:
            with _runtime(plan, environment) as runtime:
                _start(plan, runtime)
                _log.debug("the run's process was started; its logs are in %s", plan.logs)
                status = _Watch(runtime, journal, stop).until_final()
        except LaunchError as error:
            status = "stopped" if stop.count else "failed"
            journal.finish(status, str(error))
        _log.debug("the run ended: %s", status)
        return Outcome(status, stop.count > 0)


def _runtime(plan: LaunchPlan, environment: Mapping[str, str] | None) -> Simulation | Federation:
    if plan.federation is not None:
        return Federation(plan.federation, plan.folder / "flower", plan.logs / "app.log", environment)
    return Simulation(plan.logs / "simulation.log", plan.sizing, environment)


def _start(plan: LaunchPlan, runtime: Simulation | Federation) -> None:
    if isinstance(runtime, Federation):
        runtime.start(plan.run, plan.home, plan.sizing.nodes)
    else:
        runtime.start(plan.run, plan.home)


class _Watch:
    """Follows one run; every wait in here has a deadline."""

    def __init__(self, runtime: Runtime, journal: Journal, stop: "StopSignals") -> None:
        self._runtime = runtime
        self._journal = journal
        self._stop = stop
        self._began = time.monotonic()
        self._next_health_check = self._began + _HEALTH_SECONDS  # it was alive a moment ago
        self._stop_deadline: float | None = None

    def until_final(self) -> FinalStatus:
        """Poll the run until its status is final, or set a final status."""
        while True:
            look = self._journal.look()
            if look.final:
                return look.final
            ending = self._interruption(look) or self._illness(look)
            if ending is not None:
                # A status written by the ServerApp at the last moment takes precedence.
                look = self._journal.look()
                if look.final:
                    return look.final
                self._journal.finish(*ending)
                return ending[0]
            self._stop.wait(_POLL_SECONDS)

    def _interruption(self, look: Look) -> Ending | None:
        if self._stop.count and not look.stopping:
            self._journal.request_stop()
        if not self._stop.count and not look.stopping:
            return None
        if not look.began:
            return "stopped", "asked to stop before it began"
        if self._stop_deadline is None:
            self._stop_deadline = time.monotonic() + _STOP_SECONDS
        if self._stop.count > 1:
            return "stopped", "ended by a second interrupt"
        if time.monotonic() > self._stop_deadline:
            return "stopped", f"ended: it did not react to the request to stop within {_STOP_SECONDS:.0f} s"
        return None

    def _illness(self, look: Look) -> Ending | None:
        now = time.monotonic()
        if now < self._next_health_check:
            return None
        self._next_health_check = now + _HEALTH_SECONDS
        ailment = self._runtime.ailment()
        if ailment is not None:
            return "failed", ailment
        if not look.began and now - self._began > _START_SECONDS:
            return "failed", f"the server did not begin within {_START_SECONDS:.0f} s: {self._runtime.last_words()}"
        return None


class StopSignals:
    """Counts requests to stop; a request ends a wait early."""

    def __init__(self) -> None:
        self.count = 0
        self._news = threading.Event()

    def take(self, _number: int, _frame: FrameType | None) -> None:
        """Count one request; a signal handler."""
        self.count += 1
        self._news.set()

    def wait(self, seconds: float) -> None:
        """Wait for ``seconds``, or until the next request."""
        if self._news.wait(seconds):
            self._news.clear()


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Handle SIGINT, SIGTERM and SIGHUP (a closed terminal) inside the block.

    Only in the main thread; in other threads signals cannot be handled.
    """
    stop = StopSignals()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    restore: list[Callable[[], object]] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        old = signal.signal(number, stop.take)
        restore.append(lambda number=number, old=old: signal.signal(number, old))  # type: ignore[misc]
    try:
        yield stop
    finally:
        for undo in restore:
            undo()
