"""Following a run by the tools that its job names in ``tracking.to``, each in a process of its own.

So a tool that fails, hangs or takes much memory costs the run nothing but an event.
"""

import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy.exc import SQLAlchemyError

from slimfed.platform.home import run_folder
from slimfed.platform.launch.child_environment import child_environment
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store
from slimfed.strategies.protocols import Event

END_SECONDS = 30.0
"""Longest time, after the end of a run, for all its trackers together to take the last figures."""

KIND = "not-tracked"
"""Kind of the events of trackers that failed."""

TOLD = 3
"""Exit code of a tracker's process that has written its failure as an event."""

_PROCESS = "slimfed.platform.launch.tracking_process"  # by name, as it imports this module
_KILL_SECONDS = 5.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Follower:
    name: str
    process: "subprocess.Popen[bytes]"
    log: Path


@contextmanager
def tracking(store: Store, run_id: str) -> Iterator[None]:
    """Context in which the job's trackers follow a run. Leaving it takes at most ``END_SECONDS`` and a kill."""
    run = Reader(store.engine).find_run(run_id)
    followers = [each for name in _names(run) if (each := _start(store, run, name)) is not None]
    try:
        yield
    finally:
        _end(store, run_id, followers)


def _names(run: Any) -> list[str]:
    return list(dict.fromkeys(run.job.get("tracking", {}).get("to", ())))


def _start(store: Store, run: Any, name: str) -> _Follower | None:
    home = Path(run.folder).parent
    log = run_folder(home, run.id).logs / f"tracking-{name}.log"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", _PROCESS, run.id, str(home), name],
                stdin=subprocess.PIPE,  # its end tells the process that the run has ended, or this one died
                stdout=output,
                stderr=output,
                env=child_environment(),
                start_new_session=True,  # Ctrl-C is for the run; the tracker is to tell its end
            )
    except OSError as error:
        report(store, run.id, name, f"its process cannot be started ({error.strerror})")
        return None
    return _Follower(name, process, log)


def _end(store: Store, run_id: str, followers: list[_Follower]) -> None:
    for each in followers:
        if each.process.stdin is not None:
            with suppress(OSError):  # it has ended already
                each.process.stdin.close()
    deadline = time.monotonic() + END_SECONDS
    for each in followers:
        try:
            code = each.process.wait(max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            _kill(each.process.pid)
            each.process.wait(_KILL_SECONDS)
            report(store, run_id, each.name, f"did not take the end of the run within {END_SECONDS:.0f} s")
        else:
            if code not in (0, TOLD):
                report(store, run_id, each.name, f"its process ended with code {code}; see {each.log.name}")


def _kill(pid: int) -> None:
    """End a process and all its descendants at once."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in [*process.children(recursive=True), process]:
            with suppress(psutil.NoSuchProcess):
                each.kill()


def report(store: Store, run_id: str, name: str, cause: str) -> None:
    """Write a tracker's failure as an event of the run. A store that takes none costs the event alone."""
    _log.warning("run %s: %s: %s", run_id, name, cause)
    try:
        done = Reader(store.engine).find_run(run_id).rounds_done
        remedy = f"slimfed publish {run_id} --to {name} sends what is missing"
        store.add_event(run_id, Event(done, KIND, f"tracking to {name}: {cause}", remedy))
    except SQLAlchemyError as fault:
        _log.warning("run %s: the store does not take the event: %s", run_id, fault)
