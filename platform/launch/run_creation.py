"""A new run, before it starts: its folder and its rows in the store."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from slimfed.platform.home import RunFolder, create_run_folder
from slimfed.platform.inputs import pin_inputs
from slimfed.platform.job.job import Job, given_to_toml, job_to_dict, job_to_toml, load_job, load_run_job
from slimfed.platform.store import mirror
from slimfed.platform.store.writer import FirstStatus, Store
from slimfed.strategies.protocols import Event

if TYPE_CHECKING:
    from slimfed.platform.launch.preflight import Checked  # imports torch, which listing runs does not need


def create_run(
    store: Store,
    home: Path,
    checked: "Checked",
    sweep: str | None = None,
    status: FirstStatus = "created",
    reference: tuple[str, str] | None = None,
) -> tuple[str, RunFolder]:
    """A new run of a checked job: its folder with the resolved job file, and its rows in the store; both or neither.

    ``sweep``: the name of the sweep that the run belongs to. ``reference``: see ``Store.create_run``.
    """
    with _new_folder(home) as (run_id, folder):
        store.create_run(run_id, job_to_dict(checked.job), folder.path, sweep, status, reference)
        _write_checked(store, run_id, folder, checked)
    return run_id, folder


def create_unchecked_run(store: Store, home: Path, job: Job, federation: str | None = None) -> tuple[str, RunFolder]:
    """A queued run of a job that is checked when it starts (:func:`complete_run`); ``federation``: its SuperLink."""
    with _new_folder(home) as (run_id, folder):
        _write_job(folder, given_to_toml(job))
        if federation:
            folder.federation.write_text(federation, encoding="utf-8")
        store.create_run(run_id, job_to_dict(job), folder.path, status="queued")
        _copy(store, run_id, folder)
    return run_id, folder


def is_unchecked(folder: RunFolder) -> bool:
    """True for a run of :func:`create_unchecked_run` that has never started."""
    traces = (folder.engine_log, folder.inputs, folder.checkpoints)  # slimfed 0.1 left only the last of them
    return not any(each.exists() for each in traces)


def job_of(folder: RunFolder) -> Job:
    """The job that a run goes on with. One that was never checked leaves open what its check will choose."""
    return load_job(folder.job) if is_unchecked(folder) else load_run_job(folder.job)


def complete_run(store: Store, run_id: str, folder: RunFolder, checked: "Checked") -> None:
    """Write what the check of a queued run has found, as :func:`create_run` does."""
    store.set_job(run_id, job_to_dict(checked.job))
    _write_checked(store, run_id, folder, checked)


def _write_checked(store: Store, run_id: str, folder: RunFolder, checked: "Checked") -> None:
    """What a check finds. The reasons of the engine choices come last: they tell that nothing is missing.

    Empty rows that are left out are an event of round 0.
    """
    _write_job(folder, job_to_toml(checked.job))
    if checked.inputs is not None:
        pin_inputs(folder, checked.inputs)
    for each in checked.dropped:
        remedy = "fill the rows in, or leave them out of the file"
        store.add_event(run_id, Event(0, "rows-dropped", str(each), remedy))
    for line in checked.truncated:
        store.add_event(run_id, Event(0, "texts-truncated", line, "raise data.max_length, or shorten the texts"))
    if checked.origin:
        store.add_event(run_id, Event(0, "base-origin", f"the base was read from {checked.origin}", ""))
    devices = zip(checked.fleet.devices, checked.examples, strict=True)
    store.set_devices(run_id, [(each.device, each.profile, examples) for each, examples in devices])
    _copy(store, run_id, folder)
    folder.engine_log.write_text("\n".join([*checked.reasons, ""]), encoding="utf-8")


def _write_job(folder: RunFolder, text: str) -> None:
    folder.job.touch(mode=0o600)  # the store's URL may hold a password
    folder.job.write_text(text, encoding="utf-8")


def _copy(store: Store, run_id: str, folder: RunFolder) -> None:
    with store.engine.connect() as connection:
        mirror.copy_run(connection, run_id, folder.rows)


@contextmanager
def _new_folder(home: Path) -> Iterator[tuple[str, RunFolder]]:
    """The id and the folder of a new run; the folder goes if the block fails."""
    run_id, folder = create_run_folder(home)
    try:
        folder.logs.mkdir()
        yield run_id, folder
    except BaseException:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
