"""Several runs, one after another or at once, through the launcher that ``slimfed run`` uses.

Finished runs are reused, stopped and failed runs are resumed, and missing runs are started.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slimfed.clients.errors import InputError
from slimfed.clients.processors import processor_count
from slimfed.platform.console import notes
from slimfed.platform.exit_codes import FAILED, INTERRUPTED, OK
from slimfed.platform.home import RunFolder, home, run_folder, store_url
from slimfed.platform.inputs import changes_of, read_inputs
from slimfed.platform.job.job import Job, parse_job
from slimfed.platform.launch.journal import StoreJournal
from slimfed.platform.launch.launcher import Journal, LaunchPlan, StopSignals, launch, stop_signals
from slimfed.platform.launch.liveness import is_alive
from slimfed.platform.launch.notification import notify
from slimfed.platform.launch.preflight import Checked, check, with_validation
from slimfed.platform.launch.progress import Board
from slimfed.platform.launch.resuming import resumable
from slimfed.platform.launch.run_creation import complete_run, create_run, is_unchecked, job_of
from slimfed.platform.launch.run_lock import refuse_if_computed
from slimfed.platform.launch.suiting import suited
from slimfed.platform.launch.tracking import tracking
from slimfed.platform.launch.workers import Sizing
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store
from slimfed.platform.stores import reading
from slimfed.platform.sweep import Variant, same_work

_WAIT_SECONDS = 0.25


@dataclass(frozen=True)
class Batch:
    """The result of a batch: ids of the finished runs in order, and the exit code."""

    run_ids: tuple[str, ...]
    code: int


@dataclass(frozen=True)
class Task:
    """A variant and its finished or unfinished run (a row of the store); None without run."""

    variant: Variant
    found: Any

    @property
    def done(self) -> bool:
        """True if its run is finished."""
        return self.found is not None and self.found.status == "done"


Compute = Callable[[LaunchPlan, StoreJournal, StopSignals], object]
"""Computes one run to its end."""


def launch_run(plan: LaunchPlan, journal: Journal, stop: StopSignals) -> None:
    """Compute a run through Flower's runtime."""
    launch(plan, journal, stop=stop)


def run_batch(
    variants: Sequence[Variant],
    parallel: int,
    sweep: str | None = None,
    place: Path | None = None,
    compute: Compute = launch_run,
) -> Batch:
    """Run the missing runs of ``variants``, ``parallel`` at once. Raises ``InputError`` before the first one starts.

    Only runs of the same ``sweep`` are reused or resumed; without sweep, any run of the same job. A first Ctrl-C stops
    the runs and starts no more; a second one kills them. ``place``: folder of the runs. ``compute``: by default through
    Flower's runtime.
    """
    place = place or home()
    variants = [replace(variant, job=suited(variant.job)) for variant in variants]
    tasks = find_runs(variants, sweep, place)
    _say_what_is_to_do(tasks, sweep)
    pending = _checked(tasks)
    crew = _Crew(sweep, parallel, place, compute)
    with stop_signals() as stop, Board() as board, ThreadPoolExecutor(parallel) as pool:
        waiting = {pool.submit(crew.work, task, board, stop) for task in pending}
        while waiting:  # in short intervals, so that signals are handled
            _, waiting = wait(waiting, _WAIT_SECONDS)
    ended = find_runs(variants, sweep, place)
    for task in ended:
        if task.found is not None and not task.done:
            notes().print(
                f"{task.variant.label}: run {task.found.id} {task.found.status}: {task.found.cause}",
                markup=False,
                soft_wrap=True,
            )
    crew.raise_first_error()
    if stop.count:
        notes().print("stopped; the same command goes on from here")
    code = INTERRUPTED if stop.count else OK if all(task.done for task in ended) else FAILED
    return Batch(tuple(task.found.id for task in ended if task.done), code)


class _Crew:
    """Runs tasks in threads."""

    def __init__(self, sweep: str | None, parallel: int, place: Path, compute: Compute) -> None:
        self._place = place
        self._compute = compute
        self._sweep = sweep
        self._parallel = parallel
        self._errors: list[BaseException] = []
        # Loading a model sets random state and verbosity of the whole process.
        self._preparing = threading.Lock()

    def work(self, task: Task, board: Board, stop: StopSignals) -> None:
        """Run one task to its end; nothing after a request to stop. Errors are kept for :meth:`raise_first_error`."""
        try:
            if not stop.count:
                self._run(task, board, stop)
        except BaseException as error:
            self._errors.append(error)

    def raise_first_error(self) -> None:
        """Raise the first error outside the runs, if there was one."""
        if self._errors:
            raise self._errors[0]

    def _run(self, task: Task, board: Board, stop: StopSignals) -> None:
        with Store.open(store_url(task.variant.job), self._place) as store:
            with self._preparing:
                run_id, folder, checked = self._prepare(store, task)
            if not store.mark_running(run_id):  # stopped before it began
                return
            size = _share(checked.sizing, task.variant.job, self._parallel)
            plan = LaunchPlan(run_id, folder.path.parent, folder.path, size)
            with tracking(store, run_id), board.display(task.variant.label) as display:
                self._compute(plan, StoreJournal(store, run_id, display), stop)
            notify(store, run_id)

    def _prepare(self, store: Store, task: Task) -> tuple[str, RunFolder, Checked]:
        if task.found is None:
            checked = check(task.variant.job)
            return *create_run(store, self._place, checked, self._sweep), checked
        folder = run_folder(Path(task.found.folder).parent, task.found.id)
        refuse_if_computed(folder)
        checked = check(job_of(folder))
        resumable(folder, checked)
        if not store.take_over(task.found):
            raise InputError(f"run {task.found.id} was stopped or resumed by somebody else; start the sweep again")
        if is_unchecked(folder):
            complete_run(store, task.found.id, folder, checked)
        return task.found.id, folder, checked


def find_runs(variants: Sequence[Variant], sweep: str | None, place: Path) -> list[Task]:
    """Every variant with its finished run, or else its newest unfinished one; ``InputError`` if that one is running."""
    with reading(variants[0].job, place) as store:
        if store is None:
            return [Task(variant, None) for variant in variants]
        reader = Reader(store.engine)
        return [Task(variant, _match(reader, variant.job, sweep)) for variant in variants]


def _match(reader: Reader, job: Job, sweep: str | None) -> Any:
    rows = reader.runs_like(job.seed, job.method.name, job.training.rounds, job.fleet.devices, sweep)
    alike = [row for row in rows if _is_job(row.job, job) and _began_with_what_there_is(row, job, sweep)]
    found = next((row for row in alike if row.status == "done"), next(iter(alike), None))
    if found is not None and is_alive(found):
        raise InputError(f"run {found.id} is running (process {found.pid} on {found.host}); `slimfed stop` stops it")
    return found


def _began_with_what_there_is(row: Any, job: Job, sweep: str | None) -> bool:
    """True unless text, model or profile have changed since a done run, which a new one then takes the place of.

    Raises ``InputError`` for a run of a sweep, whose runs would not be comparable.
    """
    if row.status != "done":
        return True  # it is checked when it is resumed
    changes = changes_of(run_folder(Path(row.folder).parent, row.id), job, read_inputs(with_validation(job)))
    if changes and sweep:
        raise InputError(
            "\n".join([*changes, f"run {row.id} of sweep {sweep!r} began with other content: give another --name"])
        )
    return not changes


def _is_job(stored: Any, job: Job) -> bool:
    """True if a stored job, possibly of an older slimfed, equals this job."""
    try:
        return same_work(parse_job(stored), job)
    except InputError:
        return False


def _checked(tasks: Sequence[Task]) -> list[Task]:
    """The checked tasks that remain, with one precision for all jobs that leave it open.

    The precision is that of existing runs, or else the one chosen for the first task. Raises ``InputError`` with a line
    for everything that is wrong.
    """
    problems: list[str] = []
    precision = next((task.found.job["engine"]["dtype"] for task in tasks if task.found is not None), "auto")
    pending = [task for task in tasks if not task.done]
    for task in pending:
        if task.variant.first:
            try:
                with notes().status(f"checking {task.variant.label}"):
                    chosen = check(_unmeasured(_in_precision(task.variant.job, precision)))
                    precision = chosen.job.engine.dtype if precision == "auto" else precision
            except InputError as error:
                problems += [f"{task.variant.label}: {line}" for line in str(error).splitlines()]
    if problems:
        raise InputError("\n".join(problems))
    return [
        replace(task, variant=replace(task.variant, job=_in_precision(task.variant.job, precision))) for task in pending
    ]


def _in_precision(job: Job, precision: str) -> Job:
    """The job with ``precision`` in place of "auto"."""
    return _with_engine(job, dtype=precision) if job.engine.dtype == "auto" else job


def _unmeasured(job: Job) -> Job:
    """The job with a fixed cohort size, so that checking needs no measurement."""
    return _with_engine(job, cohort_size=1) if job.engine.cohort_size == "auto" else job


def _with_engine(job: Job, **fields: Any) -> Job:
    return job.model_copy(update={"engine": job.engine.model_copy(update=fields)})


def _say_what_is_to_do(tasks: Sequence[Task], sweep: str | None) -> None:
    done = sum(task.done for task in tasks)
    going_on = sum(task.found is not None for task in tasks) - done
    what = f"sweep {sweep}: " if sweep else ""
    counts = f"{done} done already, {going_on} to go on with, {len(tasks) - done - going_on} to start"
    notes().print(f"{what}{len(tasks)} runs, {counts}; Ctrl-C stops", markup=False, soft_wrap=True)


def _share(size: Sizing, job: Job, parallel: int) -> Sizing:
    """The job with the workers of one of ``parallel`` equal parts of the processors, unless it sets ``workers``."""
    if size.gpus or job.engine.workers != "auto":
        return size
    most = max(1, processor_count() // parallel)
    return replace(size, nodes=min(size.nodes, most), workers=min(size.workers, most))
