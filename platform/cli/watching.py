"""``watch``: follow a run that another process computes, or that waits in the queue."""

import time
from typing import TYPE_CHECKING

import typer

from slimfed.platform.cli.options import RunId
from slimfed.platform.console import notes
from slimfed.platform.exit_codes import FAILED, INTERRUPTED, OK

if TYPE_CHECKING:
    from slimfed.platform.launch.journal import StoreJournal
    from slimfed.platform.store.reader import Reader

_LOOK_SECONDS = 0.5
_HEALTH_SECONDS = 5.0
_SILENCE_SECONDS = 60.0


def watch(run: RunId) -> None:
    """Follow a run until it ends, with the round under way. Ctrl-C ends the command and not the run."""
    from slimfed.platform.cli.listing import print_summary
    from slimfed.platform.launch.journal import StoreJournal
    from slimfed.platform.launch.progress import open_display
    from slimfed.platform.store.reader import Reader
    from slimfed.platform.stores import existing
    from slimfed.platform.summary import run_summaries

    with existing() as store:
        reader = Reader(store.engine)
        found = reader.find_run(run)
        try:
            with open_display() as display:
                ended = _follow(StoreJournal(store, found.id, display, began=True), reader, found.id)
        except KeyboardInterrupt:
            notes().print(f"run {found.id} goes on; `slimfed stop {found.id}` stops it")
            raise typer.Exit(INTERRUPTED) from None
        found = reader.find_run(found.id)
        if not ended:
            notes().print(f"run {found.id} has no process; `slimfed resume {found.id}` continues it")
            raise typer.Exit(FAILED)
        summary = run_summaries([found], reader, store.address)[0]
        print_summary(found, summary, reader.references(found.id), reader.global_sparsity(found.id))
    raise typer.Exit(OK if found.status == "done" else FAILED)


def _follow(journal: "StoreJournal", reader: "Reader", run_id: str) -> bool:
    """Show the run until it ends; False if no process has computed it for a minute, though it has begun."""
    from slimfed.platform.launch.liveness import is_alive

    alive = next_check = time.monotonic()
    while journal.look().final is None:
        now = time.monotonic()
        if now >= next_check:
            next_check = now + _HEALTH_SECONDS
            run = reader.find_run(run_id)
            alive = now if run.status == "queued" or is_alive(run) else alive
            if now - alive > _SILENCE_SECONDS:
                return False
        time.sleep(_LOOK_SECONDS)
    return True
