"""The ServerApp's session: assembles a run, computes it to its end, and records its final status."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid
from sqlalchemy.exc import SQLAlchemyError

from slimfed.clients.errors import SlimfedError
from slimfed.clients.node.runtime import open_runtime, open_server_runtime
from slimfed.clients.telemetry.telling import folder_of, told
from slimfed.clients.verbosity import FORMAT, follow_environment
from slimfed.platform.home import RunFolder, home, run_folder, store_url
from slimfed.platform.inputs import Inputs, check_unchanged, pin_inputs, pinned_inputs, read_inputs
from slimfed.platform.job.job import Job, load_job
from slimfed.platform.launch.preflight import check
from slimfed.platform.launch.run_creation import create_run
from slimfed.platform.launch.run_lock import computing
from slimfed.platform.server.assembly import assemble, new_fleet, restored_fleet
from slimfed.platform.server.base_digest import pin_base
from slimfed.platform.server.progress_writer import ProgressWriter
from slimfed.platform.server.recorder import StoreRecorder
from slimfed.platform.store import mirror
from slimfed.platform.store.faults import as_store_error
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store
from slimfed.strategies.progress import RunProgress
from slimfed.strategies.transport import StopRequestedError

_log = logging.getLogger(__name__)


def serve(grid: Grid, settings: Mapping[str, Any], after_round: Callable[[], object] = lambda: None) -> None:
    """Compute the run ``slimfed.run`` below ``slimfed.home`` from its last finished round to its end.

    Without a run id (``flwr run .``) a new run is made of the job file ``slimfed.job``, or of the built-in job.
    ``after_round`` is called whenever a round has been recorded. The final status is always written to the store;
    errors are raised again for Flower. Raises ``InputError``, and writes nothing, if another process computes the run.
    """
    place = Path(str(settings["slimfed.home"])) if settings["slimfed.home"] else home()
    if settings["slimfed.run"]:
        run_id, folder = str(settings["slimfed.run"]), run_folder(place, str(settings["slimfed.run"]))
        job = load_job(folder.job)
    else:
        checked = check(load_job(str(settings["slimfed.job"]) or None))
        job = checked.job
        with Store.open(store_url(job), place) as store:
            run_id, folder = create_run(store, place, checked)
    progress = RunProgress(partial(told, folder_of(settings)))
    with (
        computing(folder),
        Store.open(store_url(job), place) as store,
        _logging_to(folder.logs / "server.log"),
        _recording_end(store, run_id),
    ):
        if not store.mark_running(run_id):
            raise StopRequestedError(f"run {run_id} was stopped before it began")
        finished = Reader(store.engine).find_run(run_id).rounds_done
        patience = job.deadlines.store_seconds
        recorder = StoreRecorder(store, run_id, folder.checkpoints, patience=patience, after_round=after_round)
        real = bool(settings["slimfed.real"])
        task = job.task_spec().model_copy(update={"inputs": _held_inputs(folder, job).of_devices(job.model)})
        runtime = open_server_runtime(task) if real else open_runtime(task)
        pin_base(folder, job.model, runtime.base)
        fleet = restored_fleet(runtime, job, folder, finished) if finished else new_fleet(runtime, job)
        strategy = assemble(job, runtime, fleet, int(settings["slimfed.nodes"]), recorder, real=real, progress=progress)
        store.rewind(run_id, strategy.fleet.round)
        mirror.forget_after(folder.rows, strategy.fleet.round)
        _log.info("run %s: %d of %d rounds done", run_id, strategy.fleet.round, job.training.rounds)
        _log.info("run %s: engine %s", run_id, job.engine)
        before = Reader(store.engine).seconds_per_round([run_id]).get(run_id)
        with ProgressWriter(store, run_id, progress, job.training.rounds, before):
            strategy.start(grid)


def _held_inputs(folder: RunFolder, job: Job) -> Inputs:
    """What the job's fields name, if it is what the run began with. A run of an older version begins with it now."""
    found = read_inputs(job)
    if pinned_inputs(folder) is None:
        pin_inputs(folder, found)
    check_unchanged(folder, job, found)
    return found


@contextmanager
def _recording_end(store: Store, run_id: str) -> Iterator[None]:
    """Give the run its final status, whatever happens inside."""
    try:
        yield
    except StopRequestedError:
        store.finish(run_id, "stopped", "asked to stop")
        _log.info("run %s: stopped", run_id)
    except KeyboardInterrupt:
        store.finish(run_id, "stopped", "interrupted")
        _log.info("run %s: interrupted", run_id)
        raise
    except BaseException as error:
        _log.exception("run %s: failed", run_id)
        try:
            store.finish(run_id, "failed", _in_words(as_store_error(error, store.url) or error))
        except SQLAlchemyError as unsaid:  # for example on a full disk: the first error is the cause
            _log.error("run %s: the store does not take its end: %s", run_id, unsaid)
        raise
    else:
        store.finish(run_id, "done")
        _log.info("run %s: done", run_id)


def _in_words(error: BaseException) -> str:
    """The cause for a user: errors meant for reading as they are, others with their type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, SlimfedError) and text else f"{type(error).__name__}: {text}".removesuffix(": ")


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Context in which all log messages of this process also go to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter(FORMAT))
    root = logging.getLogger()
    root.addHandler(handler)
    follow_environment()
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
