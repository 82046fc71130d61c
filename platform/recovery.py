"""Rebuilding the runs of a lost or incomplete store from the copies in their folders."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from slimfed.clients.errors import InputError
from slimfed.platform.home import RunFolder
from slimfed.platform.launch.liveness import is_alive
from slimfed.platform.launch.run_lock import is_computed
from slimfed.platform.store import mirror
from slimfed.platform.store.database import writing
from slimfed.platform.store.rows import forget_after, sum_up_run
from slimfed.platform.store.schema import Base, Device, Event, Round, Run
from slimfed.platform.store.writer import Store


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

    A run without a copy of its rows, with a damaged one, or that is running, is left out with a note.
    """
    folders = sorted(path for path in home.iterdir() if (path / "job.toml").is_file()) if home.is_dir() else []
    return [_recover(store, RunFolder(path)) for path in folders]


def _recover(store: Store, folder: RunFolder) -> Recovered:
    run_id = folder.path.name
    with writing(store.engine) as connection:
        known = connection.execute(select(Run).where(Run.id == run_id)).one_or_none()
        before = known.rounds_done if known else None
        if is_computed(folder) or (known is not None and is_alive(known)):
            note = "is running: left as it is; recover it when it has ended"
            return Recovered(run_id, before, before or 0, note, complete=known is not None)
        try:
            rows = mirror.read_run(folder.rows)
            rounds = [each for each in mirror.read_rounds(folder.rows) if each[0] > (before or 0)]
        except InputError as error:
            return Recovered(run_id, before, before or 0, str(error), complete=False)
        if rows is None and known is None:
            return Recovered(run_id, None, 0, "has no copy of its rows: a run of an older slimfed", complete=False)
        if known is None and rows is not None:
            _add_run(connection, rows, folder)
        for _, found in rounds:
            _add(connection, found)
        if rounds or known is None:
            sum_up_run(connection, run_id)
        after = connection.execute(select(Run).where(Run.id == run_id)).one()
        if known is None or rounds:
            _set_status(connection, after)
    return Recovered(run_id, before, after.rounds_done, _note(before, after.rounds_done))


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
    forget_after(connection, round["run_id"], round["round"] - 1)
    # Events are written at once, so the store may have some of this round; later ones than the copy's stay.
    here = (Event.run_id == round["run_id"]) & (Event.round == round["round"])
    connection.execute(delete(Event).where(here, Event.at <= round["finished_at"]))
    for name, several in rows.items():
        if several:
            connection.execute(insert(Base.metadata.tables[name]), several)


def _set_status(connection: Connection, run: Any) -> None:
    """Done after its last round; otherwise stopped, so that it can be resumed."""
    last = connection.scalar(
        select(Round.finished_at).where(Round.run_id == run.id).order_by(Round.round.desc()).limit(1)
    )
    done = run.rounds_done == run.rounds
    cause = None if done else f"recovered from its folder after {run.rounds_done} of {run.rounds} rounds"
    values = {"status": "done" if done else "stopped", "cause": cause, "finished_at": last or run.created_at}
    connection.execute(
        update(Run).where(Run.id == run.id).values(started_at=run.started_at or run.created_at, **values)
    )
