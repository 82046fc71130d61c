"""A run's life outside the server: made before it starts, found alive or dead afterwards."""

import os
import shutil
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from slimfed.platform.home import RunFolder, create_run_folder
from slimfed.platform.job.job import Job, job_to_toml
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import FirstStatus, Store

if TYPE_CHECKING:
    from slimfed.platform.launch.preflight import Checked  # brings torch, which listing runs can do without

# A server writes its heartbeat every five seconds while it waits, but not while it evaluates a model.
_SILENCE_SECONDS = 300.0
_LAST_WORDS_SECONDS = 30.0


def store_url(job: Job | None = None) -> str:
    """Where runs are recorded: ``store.url`` of the job if it names one, else ``SLIMFED_STORE``, else SQLite."""
    if job is not None and job.store.url != "sqlite":
        return job.store.url
    return os.environ.get("SLIMFED_STORE") or "sqlite"


def create_run(
    store: Store, home: Path, checked: "Checked", sweep: str | None = None, status: FirstStatus = "created"
) -> tuple[str, RunFolder]:
    """A new run of a checked job: its folder with the resolved job file, and its rows in the store; both or neither.

    Why the engine is what it is stands in the folder too, ``logs/engine.log``. ``sweep``: the name of the sweep that
    the run belongs to.
    """
    run_id, folder = create_run_folder(home)
    try:
        folder.job.touch(mode=0o600)  # the store's URL may hold a password
        folder.job.write_text(job_to_toml(checked.job), encoding="utf-8")
        folder.logs.mkdir()
        (folder.logs / "engine.log").write_text("\n".join([*checked.reasons, ""]), encoding="utf-8")
        store.create_run(run_id, checked.job, folder.path, sweep, status)
        store.set_devices(
            run_id,
            [
                (device.device, device.profile, examples)
                for device, examples in zip(checked.fleet.devices, checked.examples, strict=True)
            ],
        )
    except BaseException:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
    return run_id, folder


def ask_to_stop(store: Store, run: Any) -> None:
    """Have a run (a row of the store) stop. One that nobody computes is stopped at once."""
    if run.status == "queued":
        store.finish(run.id, "stopped", "taken out of the queue")
    elif not is_alive(run):
        store.finish(run.id, "stopped", "its process is gone")
    else:
        store.request_stop(run.id)


def is_alive(run: Any) -> bool:
    """True if a process computes this run (a row of the store), as far as can be seen from here."""
    if run.status not in ("created", "running") or run.heartbeat_at is None:
        return False
    heartbeat = as_utc(run.heartbeat_at)
    if run.host != socket.gethostname():
        return (datetime.now(UTC) - heartbeat).total_seconds() < _SILENCE_SECONDS
    try:
        # A process that is younger than the last heartbeat only inherited the number.
        return bool(psutil.Process(run.pid).create_time() <= heartbeat.timestamp() + 1.0)
    except psutil.NoSuchProcess:
        return False


def settle(store: Store) -> None:
    """Say of runs of this computer whose process ended without a word (killed, power lost) that they failed.

    Nobody else would: their status would be "running" for ever. A process that ended a moment ago may have a launcher
    that still writes why.
    """
    for run in Reader(store.engine).runs(limit=None, status=("running",)):
        if run.host != socket.gethostname() or run.heartbeat_at is None or is_alive(run):
            continue
        if (datetime.now(UTC) - as_utc(run.heartbeat_at)).total_seconds() > _LAST_WORDS_SECONDS:
            cause = "its process ended without a word: killed, or the computer went down; `slimfed resume` continues it"
            store.finish(run.id, "failed", cause)


def as_utc(moment: datetime) -> datetime:
    """Times in the store are UTC; SQLite gives them back without saying so."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
