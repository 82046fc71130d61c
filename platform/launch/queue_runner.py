"""The queue runner ("foreman"): a separate process that starts the queued runs of this computer one after another.

``slimfed run --queue`` and the dashboard put runs into the store with status "queued" and call :func:`call_foreman`.
The foreman continues after its caller ends, and runs continue after the foreman ends. It ends when the queue is empty.
The queue is in the store, so it survives a restart of the computer; the next caller starts a new foreman.
"""

import fcntl
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

from slimfed.platform.home import home, run_folder, store_url
from slimfed.platform.launch.child_environment import child_environment
from slimfed.platform.launch.liveness import is_alive
from slimfed.platform.launch.notification import notify
from slimfed.platform.store.dashboard_reader import Insight
from slimfed.platform.store.writer import Store

_LOOK_SECONDS = 1.0
_PATIENCE_SECONDS = 5.0
"""Seconds that a second foreman waits for the first one to end, which may have read the queue for the last time."""

_ERROR = "error: "
_RESUME = "from slimfed.platform.cli import main; main()"
LOG = "launch.log"


def call_foreman(place: Path, store: str) -> None:
    """Start a foreman for the queue of this home and store, unless one is running."""
    place.mkdir(parents=True, exist_ok=True)
    with (place / "foreman.log").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "slimfed.platform.launch.queue_runner"],
            env={**child_environment(), "SLIMFED_HOME": str(place), "SLIMFED_STORE": store},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def at_work(place: Path) -> bool:
    """True while a foreman of this home is alive."""
    try:
        with (place / "foreman.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return (place / "foreman.lock").exists()
    return False


def waiting_here(insight: Insight, place: Path) -> list[Any]:
    """The queued runs of this computer and home, in the order of starting."""
    here = (socket.gethostname(), str(place))
    return [run for run in insight.queued() if (run.host, str(Path(run.folder).parent)) == here]


def work(store: Store, place: Path) -> None:
    """Start queued runs, each when no other run is running on this computer, until the queue is empty."""
    insight = Insight(store.engine)
    while waiting := waiting_here(insight, place):
        if busy(insight):
            time.sleep(_LOOK_SECONDS)
        elif store.claim(waiting[0].id):
            _start(store, place, waiting[0].id)


def busy(insight: Insight) -> bool:
    """True while a run of this store is running on this computer."""
    return any(
        run.host == socket.gethostname() and is_alive(run) for run in insight.runs(status=("created", "running"))
    )


def _start(store: Store, place: Path, run_id: str) -> None:
    """Compute a run to its end, in a process that continues if this one ends."""
    log = run_folder(place, run_id).logs / LOG
    with log.open("ab") as output:
        code = subprocess.Popen(
            [sys.executable, "-c", _RESUME, "resume", run_id, "--claimed"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        ).wait()
    run = Insight(store.engine).find_run(run_id)
    # The run may already have ended or been queued again, since its process needs seconds to end.
    if code and run.status in ("created", "running") and not is_alive(run):
        store.end_without_process(
            run, "failed", cause_in(log.read_text(errors="replace")) or f"it ended with code {code}"
        )
        notify(store, run_id)


def cause_in(log: str) -> str:
    """The errors that a process printed last, or else its last line; "" if it printed nothing."""
    lines = [line for line in log.splitlines() if line.strip()]
    errors = list(takewhile(lambda line: line.startswith(_ERROR), reversed(lines)))
    return "; ".join(line.removeprefix(_ERROR) for line in reversed(errors)) if errors else "".join(lines[-1:])


@contextmanager
def _alone(place: Path) -> Iterator[bool]:
    """True for the only foreman of a home; False if another one stays."""
    with (place / "foreman.lock").open("a") as lock:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() > deadline:
                    yield False
                    return
                time.sleep(0.1)
            else:
                break
        yield True


def main() -> None:
    """Work until the queue is empty, unless another foreman is running."""
    place = home()
    with _alone(place) as alone:
        if alone:
            with Store.open(store_url(), place) as store:
                work(store, place)


if __name__ == "__main__":
    main()
