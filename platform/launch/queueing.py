"""Putting a run into the queue: in well under a second, after the checks that need no model."""

from pathlib import Path

from slimfed.platform.home import RunFolder
from slimfed.platform.job.job import Job
from slimfed.platform.launch.queue_runner import call_foreman
from slimfed.platform.launch.quick_check import quick_check
from slimfed.platform.launch.run_creation import create_unchecked_run
from slimfed.platform.store.writer import Store


def queue_job(store: Store, place: Path, named: str, job: Job, federation: str | None = None) -> tuple[str, RunFolder]:
    """A queued run of ``job``, and its folder; a queue runner is there to start it.

    ``named``: the store as ``SLIMFED_STORE`` has it. ``federation``: the SuperLink of real devices. Raises
    ``InputError``; then nothing is written. What needs the model is checked when the run starts: an error then is the
    cause for which it failed.
    """
    quick_check(job)
    run_id, folder = create_unchecked_run(store, place, job, federation)
    call_foreman(place, named)
    return run_id, folder
