"""Running a job from Python: through Flower's runtime, as the command line does, or within this process."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

from slimfed.clients.errors import InputError
from slimfed.platform.api import local_runtime
from slimfed.platform.api.jobs import JobSource, Settings, load_job
from slimfed.platform.api.notebook import open_notebook_display
from slimfed.platform.api.results import RunResult, place
from slimfed.platform.api.rounds import OnRound, RoundReporter
from slimfed.platform.home import RunFolder, run_folder, store_url
from slimfed.platform.launch.journal import StoreJournal
from slimfed.platform.launch.launcher import FinalStatus, LaunchPlan, Look, launch
from slimfed.platform.launch.liveness import is_alive
from slimfed.platform.launch.notification import notify
from slimfed.platform.launch.progress import Display, NoDisplay, open_display
from slimfed.platform.launch.run_lock import refuse_if_computed
from slimfed.platform.launch.tracking import tracking
from slimfed.platform.launch.workers import Sizing
from slimfed.platform.lineage import with_parent
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store
from slimfed.platform.stores import check_store

Runtime = Literal["flower", "local"]
_RUNTIMES = ("flower", "local")


def run(
    job: JobSource = None,
    *,
    set: Settings = (),
    runtime: Runtime = "flower",
    progress: bool = True,
    on_round: OnRound | None = None,
    home: str | Path | None = None,
) -> RunResult:
    """Run a job to its end.

    ``job`` and ``set`` as in :func:`slimfed.load_job`. ``runtime``: "flower" starts Flower's simulation engine with Ray
    workers and uses all processors, as ``slimfed run`` does; "local" computes in this process, one cohort after
    another, which starts at once and suits notebooks and small jobs. Both give the same result. ``progress``: show a
    bar on standard error, or in the notebook. ``on_round`` is called after every round with its
    :class:`slimfed.RoundFigures`; if it raises, the run is stopped and the error raised again. ``home``: folder of the
    runs; default: that of the command line. An interrupted run (Ctrl-C) ends as "stopped" and can be resumed.

    Raises ``InputError`` for a job that cannot run, before anything is written. A failing run raises nothing; its
    status is "failed", and ``cause`` has the cause.
    """
    check_runtime(runtime)
    from slimfed.platform.launch.preflight import check  # brings torch
    from slimfed.platform.launch.run_creation import create_run

    wanted, where = load_job(job, set), place(home)
    check_store(wanted, where)
    wanted = with_parent(wanted, where)
    checked, url = check(wanted), store_url(wanted)
    with Store.open(url, where) as store:
        run_id, folder = create_run(store, where, checked)
        _compute(store, run_id, folder, checked.sizing, runtime, progress, on_round)
    return RunResult.read(run_id, where, url)


def resume(
    run: str | RunResult,
    *,
    runtime: Runtime = "flower",
    progress: bool = True,
    on_round: OnRound | None = None,
    home: str | Path | None = None,
    accept_changes: bool = False,
) -> RunResult:
    """Continue a stopped or failed run at the round after its last finished one; a run that is done stays as it is.

    ``run``: a result, or a run's id, its beginning, or "last". The other parameters are those of :func:`run`; a run
    may be resumed in another runtime than it began in. ``accept_changes``: go on although text, tokenizer,
    configuration or fleet profile are not those that the run began with, which is recorded as an event.

    Raises ``InputError`` for a run that is running, and for such changes unless they are accepted.
    """
    check_runtime(runtime)
    from slimfed.platform.launch.preflight import check  # brings torch
    from slimfed.platform.launch.resuming import accept, resumable
    from slimfed.platform.launch.run_creation import complete_run, is_unchecked, job_of

    known = run if isinstance(run, RunResult) else RunResult.read(run, place(home), store_url())
    with Store.open(known.store, known.home) as store:
        row = Reader(store.engine).find_run(known.id)
        if row.status != "done":
            if is_alive(row):
                raise InputError(f"run {row.id} is running (process {row.pid} on {row.host}); stop it first")
            folder = run_folder(Path(row.folder).parent, row.id)
            refuse_if_computed(folder)
            if folder.federation.is_file():
                raise InputError(f"run {row.id} runs on real devices: continue it with `slimfed resume {row.id}`")
            checked = check(job_of(folder))
            changes = resumable(folder, checked, accept_changes)
            if not store.take_over(row):
                raise InputError(f"run {row.id} is being resumed by somebody else")
            if is_unchecked(folder):
                complete_run(store, row.id, folder, checked)
            accept(store, row, folder, checked, changes)
            _compute(store, row.id, folder, checked.sizing, runtime, progress, on_round)
    return known.refresh()


def check_runtime(runtime: str) -> None:
    """Raises ``InputError`` for a runtime that there is not."""
    if runtime not in _RUNTIMES:
        raise InputError(f"runtime = {runtime!r}: must be one of {', '.join(_RUNTIMES)}")


def _compute(
    store: Store,
    run_id: str,
    folder: RunFolder,
    sizing: Sizing,
    runtime: Runtime,
    progress: bool,
    on_round: OnRound | None,
) -> None:
    """Compute a run, with progress and ``on_round``; raises the error of ``on_round`` again."""
    if not store.mark_running(run_id):  # stopped before it began
        return
    reader = Reader(store.engine)
    reporter = RoundReporter(reader, run_id, on_round, told=reader.find_run(run_id).rounds_done)
    with tracking(store, run_id), _display(progress) as display:
        journal = _ReportingJournal(StoreJournal(store, run_id, display, began=runtime == "local"), reporter)
        plan = LaunchPlan(run_id, folder.path.parent, folder.path, sizing)
        if runtime == "local":
            local_runtime.compute(plan, journal)
        else:
            launch(plan, journal)
        journal.look()
    notify(store, run_id)
    if reporter.error is not None:
        raise reporter.error


class _ReportingJournal:
    """A journal that reports new rounds when it is read, and requests a stop once ``on_round`` has raised."""

    def __init__(self, journal: StoreJournal, reporter: RoundReporter) -> None:
        self._journal = journal
        self._reporter = reporter

    def look(self) -> Look:
        """Read the run, update the display and report new rounds."""
        look = self._journal.look()
        if not self._reporter.report(look.rounds_done) and look.final is None and not look.stopping:
            self._journal.request_stop()
        return look

    def request_stop(self) -> None:
        """Ask the run to stop."""
        self._journal.request_stop()

    def finish(self, status: FinalStatus, cause: str) -> None:
        """Set a final status."""
        self._journal.finish(status, cause)


def _display(progress: bool) -> AbstractContextManager[Display]:
    if not progress:
        return nullcontext(NoDisplay())
    return open_notebook_display() or open_display()
