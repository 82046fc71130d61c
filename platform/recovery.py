"""Rebuilding the runs of a lost or incomplete store from the copies in their folders."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from slimfed.clients.errors import InputError
from slimfed.platform.home import RunFolder, store_url
from slimfed.platform.job.job import load_job
from slimfed.platform.launch.liveness import is_alive
from slimfed.platform.launch.run_lock import is_computed
from slimfed.platform.server import checkpoint
from slimfed.platform.store import mirror
from slimfed.platform.store.database import resolve_url, shown, writing
from slimfed.platform.store.rows import forget_after, sum_up_run
from slimfed.platform.store.schema import Base, Device, Event, Round, Run
from slimfed.platform.store.writer import Store

_RUNNING = "is running: left as it is; recover it when it has ended"


@dataclass(frozen=True)
class Recovered:
    """What became of one run folder: ``before`` and ``after`` are its rounds in the store; ``before`` None: no run.

    ``complete``: the store has all that the folder has a copy of.
    """

    run: str
    before: int | None
    after: int
    note: str
    complete: bool = True

    def as_dict(self) -> dict[str, Any]:
        """For tables and JSON."""
        return vars(self)


def recover(store: Store, home: Path) -> list[Recovered]:
    """Add to the store what the run folders of ``home`` have and the store has not; nothing in the store is changed.

    A run without a copy of its rows, with a damaged one, of another store, or that is running, is left out with a note.
    """
    return [_recover(store, RunFolder(path)) for path in run_folders(home)]


def run_folders(home: Path) -> list[Path]:
    """The folders of ``home`` that have a job file, in the order of their names."""
    return sorted(path for path in home.iterdir() if (path / "job.toml").is_file()) if home.is_dir() else []


def _recover(store: Store, folder: RunFolder) -> Recovered:
    run_id = folder.path.name
    known = _find(store, run_id)
    before = known.rounds_done if known else None
    kept = Recovered(run_id, before, before or 0, "complete")
    if is_computed(folder) or (known is not None and is_alive(known)):
        return replace(kept, note=_RUNNING, complete=known is not None)
    try:
        elsewhere = _other_store(store, folder)
        if elsewhere:
            return replace(kept, note=f"its job names the store {elsewhere}")
        rows, rounds = mirror.read_run(folder.rows, run_id), list(mirror.read_rounds(folder.rows, run_id))
        if rows is None and known is None:
            return replace(kept, note="has no copy of its rows: a run of an older slimfed", complete=False)
        missing = [each for each in rounds if each[0] > (before or 0)]
        if known is None or missing:
            with writing(store.engine) as connection:
                _complete(connection, folder, rows if known is None else None, missing)
    except InputError as error:
        return replace(kept, note=str(error), complete=False)
    except SQLAlchemyError as error:
        return replace(kept, note=f"its rows do not fit the store ({type(error).__name__})", complete=False)
    after = _find(store, run_id).rounds_done
    return _with_gap(Recovered(run_id, before, after, _note(before, after)), mirror.rounds(folder.rows))


def _find(store: Store, run_id: str) -> Any:
    """The run's row, or None."""
    with store.engine.connect() as connection:
        return connection.execute(select(Run).where(Run.id == run_id)).one_or_none()


def _other_store(store: Store, folder: RunFolder) -> str | None:
    """The store that the run's job names, without password, if it is not this one."""
    url = resolve_url(store_url(load_job(folder.job)), folder.path.parent)
    return None if url == store.url else shown(url)


def _complete(
    connection: Connection, folder: RunFolder, rows: mirror.Rows | None, missing: list[tuple[int, mirror.Rows]]
) -> None:
    """Add the run, if ``rows`` are given, and the missing rounds."""
    if rows is not None:
        _add_run(connection, rows, folder)
    for _, found in missing:
        _add(connection, found)
    sum_up_run(connection, folder.path.name)
    _set_status(connection, folder)


def _with_gap(found: Recovered, copied: list[int]) -> Recovered:
    """What is said of rounds that cannot be added, as one before them is missing."""
    if not copied or copied[-1] <= found.after:
        return found
    note = f"{found.note}; round {found.after + 1} is missing: later ones, to {copied[-1]}, are left out"
    return replace(found, note=note, complete=False)


def _note(before: int | None, after: int) -> str:
    if before is None:
        return "added"
    return "complete" if before == after else f"rounds {before + 1} to {after} added"


def _add_run(connection: Connection, rows: mirror.Rows, folder: RunFolder) -> None:
    (run,) = rows[Run.__tablename__]
    connection.execute(insert(Run), [{**run, "folder": str(folder.path), "pid": None, "stop_requested": False}])
    for kind in (Device, Event):
        if rows.get(kind.__tablename__):
            connection.execute(insert(kind), rows[kind.__tablename__])


def _add(connection: Connection, rows: mirror.Rows) -> None:
    (round,) = rows[Round.__tablename__]
    forget_after(connection, round["run_id"], round["round"] - 1 if round["round"] > 1 else -1)
    # Events are written at once, so the store may have some of this round; later ones than the copy's stay.
    here = (Event.run_id == round["run_id"]) & (Event.round == round["round"])
    connection.execute(delete(Event).where(here, Event.at <= round["finished_at"]))
    for name, several in rows.items():
        if several:
            connection.execute(insert(Base.metadata.tables[name]), several)


def _set_status(connection: Connection, folder: RunFolder) -> None:
    """Done after its last round, if that has a checkpoint; otherwise stopped, so that it can be resumed."""
    run = connection.execute(select(Run).where(Run.id == folder.path.name)).one()
    last = connection.scalar(
        select(Round.finished_at).where(Round.run_id == run.id).order_by(Round.round.desc()).limit(1)
    )
    done = run.rounds_done == run.rounds and run.rounds in checkpoint.rounds(folder.checkpoints)
    cause = None if done else f"recovered from its folder after {run.rounds_done} of {run.rounds} rounds"
    values = {"status": "done" if done else "stopped", "cause": cause, "finished_at": last or run.created_at}
    connection.execute(
        update(Run).where(Run.id == run.id).values(started_at=run.started_at or run.created_at, **values)
    )
