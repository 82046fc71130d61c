"""Checks whether a run's process is alive, used before a run is stopped, resumed or listed."""

import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from slimfed.platform.home import RunFolder
from slimfed.platform.launch.run_lock import is_computed
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import UNFINISHED, Store

# A server writes its heartbeat every five seconds while it waits, but not while it evaluates a model.
_SILENCE_SECONDS = 300.0
_LAST_WORDS_SECONDS = 30.0
_NO_PROCESS = {"queued": "taken out of the queue", "created": "asked to stop before it began"}


def ask_to_stop(store: Store, run: Any) -> None:
    """Request a run (a row of the store) to stop. A run without process is set to stopped at once.

    A run may be started at the same moment. What was read is then no longer true, and it is read again.
    """
    while run.status in UNFINISHED:
        if is_alive(run):
            store.request_stop(run.id)
            return
        if store.end_without_process(run, "stopped", _NO_PROCESS.get(run.status, "its process is gone")):
            return
        run = Reader(store.engine).find_run(run.id)


def is_alive(run: Any) -> bool:
    """True if a process computes this run (a row of the store), as far as this computer can tell."""
    if run.status not in ("created", "running") or run.heartbeat_at is None:
        return False
    heartbeat = as_utc(run.heartbeat_at)
    if run.host != socket.gethostname():
        return (datetime.now(UTC) - heartbeat).total_seconds() < _SILENCE_SECONDS
    if is_computed(RunFolder(Path(run.folder))):
        return True  # whatever the clock says, which may have jumped since the last heartbeat
    try:
        # A process that is younger than the last heartbeat is another one with the same id.
        return bool(psutil.Process(run.pid).create_time() <= heartbeat.timestamp() + 1.0)
    except psutil.NoSuchProcess:
        return False


def settle(store: Store) -> None:
    """Set runs of this computer whose process ended without a status (killed, power lost) to failed.

    Their status would stay "running" otherwise. Processes that have just ended are left out, as their launcher may
    still write the cause.
    """
    for run in Reader(store.engine).runs(limit=None, status=("running",)):
        if run.host != socket.gethostname() or run.heartbeat_at is None or is_alive(run):
            continue
        if (datetime.now(UTC) - as_utc(run.heartbeat_at)).total_seconds() > _LAST_WORDS_SECONDS:
            cause = "its process ended without a word: killed, or the computer went down; `slimfed resume` continues it"
            store.end_without_process(run, "failed", cause)


def as_utc(moment: datetime) -> datetime:
    """Times in the store are UTC; SQLite returns them without a zone."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
