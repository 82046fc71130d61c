"""``run``, ``resume`` and ``stop``."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimfed.clients.errors import InputError
from slimfed.platform.cli.options import RunId
from slimfed.platform.cli.output import print_json
from slimfed.platform.cli.references import References, make_references
from slimfed.platform.console import notes
from slimfed.platform.exit_codes import FAILED, INTERRUPTED, OK

if TYPE_CHECKING:
    from slimfed.platform.home import RunFolder
    from slimfed.platform.launch.launcher import Outcome
    from slimfed.platform.launch.workers import Sizing
    from slimfed.platform.store.writer import Store

Json = Annotated[bool, typer.Option("--json", help="print the run as one JSON object at the end")]
Queue = Annotated[
    bool,
    typer.Option("--queue", help="queue the job and return; it starts when no other run is running on this computer"),
]

_STOP_SECONDS = 40.0
_ASK_SECONDS = 0.5


def run(
    job: Annotated[Path | None, typer.Argument(help="job file; default: the built-in demo with 80 devices")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="override a field of the job; repeatable")
    ] = None,
    name: Annotated[str | None, typer.Option(help="name of the run")] = None,
    federation: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="run on real devices, through this SuperLink of Flower's configuration"),
    ] = None,
    queue: Queue = False,
    profile: Annotated[bool, typer.Option("--profile", help="also print the time of a round by phase")] = False,
    references: References = False,
    as_json: Json = False,
) -> None:
    """Run a job to its end, or put it into the queue."""
    from slimfed.platform.home import home, store_url
    from slimfed.platform.job.job import load_job
    from slimfed.platform.job.real_devices import load_real_job
    from slimfed.platform.launch.notification import check_notification
    from slimfed.platform.launch.run_creation import create_run
    from slimfed.platform.lineage import with_parent
    from slimfed.platform.store.writer import Store
    from slimfed.platform.stores import check_store

    if references and (federation or queue):
        raise InputError(
            "--references: the runs of reference are simulated after the run; leave out "
            f"{'--federation' if federation else '--queue; `slimfed resume RUN --references` makes them later'}"
        )
    given, remarks = [*(sets or []), *([f"name={_quoted(name)}"] if name else [])], []
    if federation:
        real = load_real_job(job, given)
        wanted, remarks = real.job, [real.remark]
    else:
        wanted = load_job(job, given)
    check_store(wanted, home())
    check_notification()
    if queue:
        _print_lines(remarks)
        raise typer.Exit(_queue(with_parent(wanted, home()), federation, as_json))
    checked = _check(with_parent(wanted, home()), federation)
    _print_lines([*remarks, *checked.reasons])
    with Store.open(store_url(wanted), home()) as store:
        run_id, folder = create_run(store, home(), checked)
        if federation:
            folder.federation.write_text(federation, encoding="utf-8")
        raise typer.Exit(_drive(store, run_id, folder, checked.sizing, as_json, profile, references))


def resume(
    run: RunId,
    queue: Queue = False,
    accept_changes: Annotated[
        bool,
        typer.Option("--accept-changes", help="go on although text, tokenizer, configuration or profile have changed"),
    ] = False,
    as_json: Json = False,
    references: References = False,
    claimed: Annotated[bool, typer.Option("--claimed", hidden=True)] = False,  # the queue starts the run
) -> None:
    """Continue a stopped or failed run at the round after its last finished one. A run that is done stays as it is."""
    from slimfed.platform.home import run_folder
    from slimfed.platform.launch.liveness import is_alive
    from slimfed.platform.launch.resuming import accept, quick_resumable, resumable
    from slimfed.platform.launch.run_creation import complete_run, is_unchecked, job_of
    from slimfed.platform.launch.run_lock import refuse_if_computed
    from slimfed.platform.store.reader import Reader
    from slimfed.platform.stores import existing

    with existing() as store:
        found = Reader(store.engine).find_run(run)
        if claimed and found.status != "created":
            notes().print(f"run {found.id} is {found.status} by now: the queue does not start it")
            return
        if found.status == "done":
            if references:
                _refuse_references_of_real_devices(found)
                ending = make_references(store, found.id, partial(_compute, store))
                raise typer.Exit(_code(_report(store, found.id, as_json), ending))
            notes().print(f"run {found.id} is done already, there is nothing to resume")
            raise typer.Exit(_report(store, found.id, as_json))
        if is_alive(found):
            raise InputError(
                f"run {found.id} is running (process {found.pid} on {found.host}); `slimfed stop` stops it"
            )
        folder = run_folder(Path(found.folder).parent, found.id)
        refuse_if_computed(folder)
        if queue and not accept_changes:
            quick_resumable(folder, job_of(folder))
            raise typer.Exit(_queue_again(store, found, folder, as_json))
        checked = _check(job_of(folder), _federation(folder))
        changes = resumable(folder, checked, accept_changes)
        if queue:
            accept(store, found, folder, checked, changes)
            raise typer.Exit(_queue_again(store, found, folder, as_json))
        if not store.take_over(found):
            raise InputError(
                f"run {found.id} was stopped or resumed by somebody else; `slimfed show {found.id}` shows it"
            )
        if is_unchecked(folder):
            complete_run(store, found.id, folder, checked)
        accept(store, found, folder, checked, changes)
        raise typer.Exit(_drive(store, found.id, folder, checked.sizing, as_json, references=references))


def stop(run: RunId) -> None:
    """Stop a run; it can be resumed. Returns when it has stopped."""
    from slimfed.platform.launch.launcher import FINAL
    from slimfed.platform.launch.liveness import ask_to_stop
    from slimfed.platform.store.reader import Reader
    from slimfed.platform.stores import existing

    with existing() as store:
        reader = Reader(store.engine)
        found = reader.find_run(run)
        if found.status in FINAL:
            notes().print(f"run {found.id} has ended already: {found.status}")
            return
        ask_to_stop(store, found)
        deadline = time.monotonic() + _STOP_SECONDS
        while (found := reader.find_run(found.id)).status not in FINAL:
            if time.monotonic() > deadline:
                notes().print(f"run {found.id} did not stop within {_STOP_SECONDS:.0f} s")
                raise typer.Exit(FAILED)
            store.request_stop(found.id)
            time.sleep(_ASK_SECONDS)
        notes().print(f"run {found.id} {found.status} after round {found.rounds_done}; `slimfed resume {found.id}`")


def _check(job: Any, federation: str | None) -> Any:
    """The checked job, from the preflight; the console shows a status meanwhile."""
    with notes().status("checking the job"):
        from slimfed.platform.launch.federation import check_connection, open_to_others
        from slimfed.platform.launch.preflight import check

        if federation is not None:
            check_connection(federation)
            for line in open_to_others(federation):
                notes().print(f"warning: {line}", markup=False, highlight=False, soft_wrap=True)
        return check(job, real=federation is not None)


def _federation(folder: "RunFolder") -> str | None:
    """Name of the SuperLink that the run in ``folder`` was submitted to; None for a simulated run."""
    return folder.federation.read_text(encoding="utf-8") if folder.federation.is_file() else None


def _queue(job: Any, federation: str | None, as_json: bool) -> int:
    """Put a new run into the queue and return the exit code."""
    from slimfed.platform.home import home, store_url
    from slimfed.platform.launch.queueing import queue_job
    from slimfed.platform.store.writer import Store

    with Store.open(store_url(job), home()) as store:
        run_id, folder = queue_job(store, home(), store_url(job), job, federation)
        return _report_queued(store, run_id, folder.path.parent, as_json)


def _queue_again(store: "Store", found: Any, folder: "RunFolder", as_json: bool) -> int:
    """Put a run (a row of the store) into the queue again and return the exit code."""
    from slimfed.platform.home import store_url
    from slimfed.platform.launch.queue_runner import call_foreman

    if not store.enqueue(found):
        raise InputError(f"run {found.id} is queued or started already; `slimfed show {found.id}` shows it")
    call_foreman(folder.path.parent, store_url())
    return _report_queued(store, found.id, folder.path.parent, as_json)


def _print_lines(lines: Sequence[str]) -> None:
    for line in lines:
        notes().print(line, markup=False, highlight=False, soft_wrap=True)


def _report_queued(store: "Store", run_id: str, place: Path, as_json: bool) -> int:
    """Print a queued run and how many are ahead of it, and return the exit code."""
    from slimfed.platform.launch.queue_runner import waiting_here
    from slimfed.platform.store.dashboard_reader import Insight
    from slimfed.platform.summary import run_summaries

    insight = Insight(store.engine)
    waiting = [row.id for row in waiting_here(insight, place)]
    ahead = waiting.index(run_id) if run_id in waiting else 0  # the queue runner may already have started it
    if as_json:
        print_json(run_summaries([insight.find_run(run_id)], insight, store.address)[0])
    notes().print(f"run {run_id} is queued, {ahead} ahead of it; `slimfed show {run_id}` shows it", soft_wrap=True)
    return OK


def _drive(
    store: "Store",
    run_id: str,
    folder: "RunFolder",
    sizing: "Sizing",
    as_json: bool,
    profile: bool = False,
    references: bool = False,
) -> int:
    """Launch a run, and its runs of reference if they are wanted; show its summary, and return the exit code."""
    ending = _compute(store, run_id, folder, sizing)
    if references and ending.status == "done":
        ending = make_references(store, run_id, partial(_compute, store)) or ending
    return _code(_report(store, run_id, as_json, profile), ending)


def _code(reported: int, ending: "Outcome | None") -> int:
    """The exit code of a command that ended with ``ending`` and reported on a run."""
    if ending is None:
        return reported
    if ending.interrupted and ending.status == "stopped":
        return INTERRUPTED
    return reported if ending.status == "done" else FAILED


def _refuse_references_of_real_devices(found: Any) -> None:
    if (Path(found.folder) / "federation").is_file():
        raise InputError(f"--references: run {found.id} is of real devices, whose text is not here")


def _compute(store: "Store", run_id: str, folder: "RunFolder", sizing: "Sizing") -> "Outcome":
    """Launch a run and show its progress."""
    from slimfed.platform.launch.journal import StoreJournal
    from slimfed.platform.launch.launcher import LaunchPlan, Outcome, launch
    from slimfed.platform.launch.notification import notify
    from slimfed.platform.launch.progress import open_display
    from slimfed.platform.launch.tracking import tracking

    federation = _federation(folder)
    place = f"federation: {federation}" if federation else f"nodes: {sizing.nodes}, workers: {sizing.workers}"
    notes().print(f"run {run_id} ({place}); Ctrl-C stops it", soft_wrap=True)
    if not store.mark_running(run_id):
        return Outcome("stopped", interrupted=False)  # before it began
    plan = LaunchPlan(run_id, folder.path.parent, folder.path, sizing, federation)
    with tracking(store, run_id), open_display() as display:
        ending = launch(plan, StoreJournal(store, run_id, display))
    notify(store, run_id)
    return ending


def _report(store: "Store", run_id: str, as_json: bool, profile: bool = False) -> int:
    """Print the summary of an ended run and the next command, and return the exit code."""
    from slimfed.platform.cli.listing import print_summary, reference_as_json
    from slimfed.platform.cli.profiling import print_profile, profile_of
    from slimfed.platform.store.reader import Reader
    from slimfed.platform.summary import run_summaries

    reader = Reader(store.engine)
    found = reader.find_run(run_id)
    summary = run_summaries([found], reader, store.address)[0]
    told = profile_of(Path(found.folder)) if profile else None
    references = reader.references(run_id)
    summary |= {"references": [reference_as_json(row) for row in references]}
    if as_json:
        print_json(summary | {"profile": told} if profile else summary)
    else:
        print_summary(found, summary, references, reader.global_sparsity(run_id))
        if told is not None:
            print_profile(told)
    if found.status == "done":
        notes().print("look at it: slimfed dashboard, or slimfed show " + run_id)
        return OK
    notes().print(f"run {run_id} {found.status}: {found.cause}", markup=False, soft_wrap=True)
    notes().print(f"logs: {Path(found.folder) / 'logs'}; continue with: slimfed resume {run_id}", soft_wrap=True)
    return FAILED


def _quoted(text: str) -> str:
    """``text`` as a TOML string, so that a name such as 12 or true stays text."""
    import json

    return json.dumps(text, ensure_ascii=False)
