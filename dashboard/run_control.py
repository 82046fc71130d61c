"""Operations of the pages on runs: start, stop, resume, tags and notes.

A run is put into the queue here, as ``slimfed run --queue`` does. The queue runner starts it in a separate process, so
it is checked and computed as from a terminal, and continues when the dashboard ends.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimfed.clients.errors import InputError
from slimfed.dashboard import children
from slimfed.dashboard.access import login
from slimfed.dashboard.source import Source
from slimfed.platform.job.job import located, parse_job
from slimfed.platform.launch.liveness import ask_to_stop
from slimfed.platform.launch.queue_runner import at_work, call_foreman, waiting_here
from slimfed.platform.launch.queueing import queue_job
from slimfed.platform.lineage import with_parent
from slimfed.platform.store.dashboard_reader import Insight

CHECK_SECONDS = 300
"""A check opens data and model, which takes long on a slow disk."""


@dataclass(frozen=True)
class Answer:
    """The result of an operation: the run, or the problems, one in a line."""

    run: str | None
    problems: tuple[str, ...] = ()


def start(source: Source, document: Mapping[str, Any]) -> Answer:
    """Put a job into the queue, where it starts at once if no other run is running on this computer.

    What needs no model is checked before; the rest when it starts, and what is wrong then is why the run failed.
    """
    login.check_operator()
    try:
        job = with_parent(parse_job(located(dict(document), Path.cwd())), source.home)
        with source.writing() as store:
            return Answer(queue_job(store, source.home, source.named, job)[0])
    except InputError as error:
        return Answer(None, tuple(str(error).splitlines()))


def resume(source: Source, run_id: str) -> Answer:
    """Put a stopped or failed run into the queue; it continues after its last finished round."""
    return _command(source, "resume", run_id, "--queue", "--json")


def stop(source: Source, run: Any) -> None:
    """Ask a run (a row of the store) to stop."""
    login.check_operator()
    with source.writing() as store:
        ask_to_stop(store, run)


def label(source: Source, run_ids: Sequence[str], **said: Any) -> None:
    """Write tags, notes or the archived mark of runs (arguments of ``Store.label``)."""
    login.check_operator()
    with source.writing() as store:
        for run_id in run_ids:
            store.label(run_id, **said)


def see_to_the_queue(source: Source, insight: Insight) -> int:
    """Number of queued runs of this computer. Starts a queue runner if there is none, as after a restart."""
    waiting = waiting_here(insight, source.home)
    if waiting and not at_work(source.home):
        call_foreman(source.home, source.named)
    return len(waiting)


def _command(source: Source, *arguments: str) -> Answer:
    login.check_operator()
    try:
        done = subprocess.run(
            [sys.executable, "-c", children.PROGRAM, *arguments],
            env=children.environment(source),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CHECK_SECONDS,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        return Answer(None, (f"The job could not be checked within {CHECK_SECONDS} s; can its data be reached?",))
    if done.returncode:
        return Answer(None, children.problems_in(done.stderr, done.returncode))
    return Answer(str(json.loads(done.stdout)["run_id"]))
