"""Writing to the store. One process writes a run; any number of others read (``reader.py``) or request a stop."""

import os
import socket
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import URL, Connection, Engine, Update, delete, func, insert, make_url, select, update

from slimfed.clients.plain_text import clean
from slimfed.platform.store import revisions
from slimfed.platform.store.database import can_write, open_engine, resolve_url, shown, writing
from slimfed.platform.store.faults import as_store_error
from slimfed.platform.store.schema import Device, Event, Progress, Run
from slimfed.platform.store.storable import storable

if TYPE_CHECKING:
    from slimfed.platform.store.rows import CheckpointRow
    from slimfed.strategies import protocols

FinalStatus = Literal["done", "failed", "stopped"]
FirstStatus = Literal["queued", "created"]

UNFINISHED = ("queued", "created", "running")


class Store:
    """One open store. Every method is one transaction; all raise ``sqlalchemy.exc.SQLAlchemyError`` on failure."""

    def __init__(self, engine: Engine, url: URL) -> None:
        self.engine = engine
        self.url = url

    @staticmethod
    def open(url: str, home: Path) -> "Store":
        """Open ``store.url`` of a job; an empty database gets its tables.

        Raises ``InputError`` if it cannot be reached (within 5 s) or has another revision than this slimfed's.
        """
        address = resolve_url(url, home)
        engine = open_engine(address)
        try:
            revisions.check_revision(engine, address)
        except BaseException:
            engine.dispose()
            raise
        return Store(engine, address)

    @property
    def address(self) -> str:
        """The store's address without password, for display and JSON."""
        return shown(self.url)

    @property
    def writable(self) -> bool:
        """False for an SQLite file that this process can only read."""
        return self.url.get_backend_name() != "sqlite" or can_write(Path(str(self.url.database)))

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Close; a failure of the database inside becomes a :class:`StoreError`."""
        self.close()
        fault = as_store_error(error, self.url)
        if fault is not None:
            raise fault from error

    def create_run(
        self,
        run_id: str,
        job: Mapping[str, Any],
        folder: Path,
        sweep: str | None = None,
        status: FirstStatus = "created",
        reference: tuple[str, str] | None = None,
    ) -> None:
        """Add a run of ``job``, a job file as nested tables with every field filled in (``job_to_dict``).

        ``sweep`` is the name of the sweep that it belongs to. A queued one waits for this computer. ``reference``: what
        the run shows ("local", "central"), and the run that it is shown of.
        """
        shows, of = reference or (None, None)
        row = {
            "id": run_id,
            "name": job["name"],
            "method": job["method"]["name"],
            "task": job["model"]["task"],
            "sweep": sweep,
            "evaluated_on": "validation" if job["data"].get("validation") == "use" else "test",
            "reference": shows,
            "reference_of": of,
            "status": status,
            "host": socket.gethostname(),
            "job": _without_password(job),
            "folder": str(folder),
            "seed": job["seed"],
            "rounds": job["training"]["rounds"],
            "devices": job["fleet"]["devices"],
            "target_sparsity": job["method"]["target_sparsity"],
            "created_at": _now(),
        }
        with writing(self.engine) as connection:
            connection.execute(insert(Run), [storable(Run, row)])

    def set_job(self, run_id: str, job: Mapping[str, Any]) -> None:
        """Replace the job of a run by the one that was checked, without "auto"."""
        self._update(run_id, job=_without_password(job))

    def set_devices(self, run_id: str, devices: Iterable[tuple[int, str, int]]) -> None:
        """Set the devices of a run as (device, profile, examples), replacing earlier ones."""
        rows = [
            storable(Device, {"run_id": run_id, "device": device, "profile": profile, "examples": examples})
            for device, profile, examples in devices
        ]
        with writing(self.engine) as connection:
            connection.execute(delete(Device).where(Device.run_id == run_id))
            connection.execute(insert(Device), rows)

    def mark_running(self, run_id: str) -> bool:
        """This process computes the run from now on. False if the run has ended meanwhile: it must not be computed.

        A request to stop that has been made stays.
        """
        now = _now()
        values = {
            "status": "running",
            "cause": None,
            "started_at": func.coalesce(Run.started_at, now),
            "finished_at": None,
            "heartbeat_at": now,
            "pid": os.getpid(),
            "host": socket.gethostname(),
        }
        with writing(self.engine) as connection:
            runs = Run.id == run_id, Run.status.in_(("created", "running"))
            if not connection.execute(update(Run).where(*runs).values(**storable(Run, values))).rowcount:
                return False
            if connection.scalar(select(Progress.run_id).where(Progress.run_id == run_id)) is None:
                connection.execute(insert(Progress), [_preparing(run_id, now)])
            return True

    def write_progress(self, run_id: str, values: Mapping[str, Any]) -> None:
        """Replace where the run is at this moment: columns of ``Progress``. Nothing for a run that has ended.

        Nor if a later round is under way already: it was written by :meth:`record_round`.
        """
        with writing(self.engine) as connection:
            if connection.scalar(select(Run.status).where(Run.id == run_id)) not in UNFINISHED:
                return
            row = storable(Progress, {"run_id": run_id, "updated_at": _now(), **values})
            known = connection.scalar(select(Progress.round).where(Progress.run_id == run_id))
            if known is None:
                connection.execute(insert(Progress), [row])
            elif known <= values["round"]:
                connection.execute(update(Progress).where(Progress.run_id == run_id).values(**row))

    def take_over(self, run: Any) -> bool:
        """Become the one process that resumes a run (a row as it was read); False if another process was faster.

        Of several processes that read the run in the same state exactly one succeeds, also across computers.
        """
        now = _now()
        process = {"pid": os.getpid(), "host": socket.gethostname(), "heartbeat_at": now}
        # A stop that was requested of the process before this one is over; one of the queue's own start is not.
        stop = run.stop_requested if run.status == "created" else False
        values = {"status": "running", "stop_requested": stop, **process}
        with writing(self.engine) as connection:
            query = update(Run).where(*_as_seen(run)).values(**values)
            return _changed(connection, run.id, query)

    def end_without_process(self, run: Any, status: FinalStatus, cause: str) -> bool:
        """Give a run that no process computes (a row as it was read) its end; False if it has changed since."""
        values = {"status": status, "cause": cause, "finished_at": _now(), "stop_requested": False}
        with writing(self.engine) as connection:
            query = update(Run).where(*_as_seen(run), Run.status.in_(UNFINISHED)).values(**storable(Run, values))
            return _changed(connection, run.id, query)

    def enqueue(self, run: Any) -> bool:
        """Queue a stopped or failed run, or one without process (a row as it was read), for this computer.

        False if it has changed since, or is already queued, being started, or done.
        """
        values = {"status": "queued", "cause": None, "finished_at": None, "stop_requested": False}
        values["host"] = socket.gethostname()
        with writing(self.engine) as connection:
            waits = Run.status.in_(("stopped", "failed", "running"))
            query = update(Run).where(*_as_seen(run), waits).values(**storable(Run, values))
            return _changed(connection, run.id, query)

    def claim(self, run_id: str) -> bool:
        """Take a run from the queue in order to start it. False if it is no longer in the queue."""
        return self._change(run_id, ("queued",), {"status": "created", "pid": None, "heartbeat_at": None})

    def label(
        self, run_id: str, tags: Sequence[str] | None = None, notes: str | None = None, archived: bool | None = None
    ) -> None:
        """Write tags, notes or the archived mark of a run; None leaves it unchanged. Tags are unique, in order."""
        given = {
            "tags": None if tags is None else list(dict.fromkeys(clean(tag, 200) for tag in tags)),
            "notes": notes,
            "archived": archived,
        }
        self._update(run_id, **{name: value for name, value in given.items() if value is not None})

    def heartbeat(self, run_id: str) -> None:
        """Record that the run's process is alive."""
        self._update(run_id, heartbeat_at=_now())

    def finish(self, run_id: str, status: FinalStatus, cause: str | None = None) -> bool:
        """Set the final status and the cause of an unfinished run. False if it had already ended."""
        values = {"status": status, "cause": cause, "finished_at": _now(), "stop_requested": False}
        with writing(self.engine) as connection:
            runs = Run.id == run_id, Run.status.in_(UNFINISHED)
            return _changed(connection, run_id, update(Run).where(*runs).values(**storable(Run, values)))

    def request_stop(self, run_id: str) -> bool:
        """Ask the run's process to stop. False if the run has ended already (or does not exist)."""
        return self._change(run_id, UNFINISHED, {"stop_requested": True})

    def stop_requested(self, run_id: str) -> bool:
        """True after :meth:`request_stop`, and once the run has ended: nothing may be computed for it any more."""
        with self.engine.connect() as connection:
            run = connection.execute(select(Run.stop_requested, Run.status).where(Run.id == run_id)).one_or_none()
        return run is not None and (run.stop_requested or run.status not in UNFINISHED)

    def add_event(self, run_id: str, event: "protocols.Event") -> None:
        """Write one event at once."""
        from slimfed.platform.store.rows import event_row  # as in record_round

        with writing(self.engine) as connection:
            connection.execute(insert(Event), [storable(Event, event_row(run_id, event, _now()))])

    def record_baseline(self, run_id: str, baseline: "protocols.Baseline") -> None:
        """Write round 0, in place of an earlier one, and what the run's row has of it."""
        from slimfed.platform.store.rows import write_baseline  # as in record_round

        with writing(self.engine) as connection:
            write_baseline(connection, run_id, baseline)

    def rewind(self, run_id: str, round: int) -> None:
        """Delete the rounds after ``round``, from which a resumed run continues. Events are kept."""
        from slimfed.platform.store.rows import forget_after, sum_up_run  # as in record_round

        with writing(self.engine) as connection:
            forget_after(connection, run_id, round)
            sum_up_run(connection, run_id)

    def record_round(
        self,
        run_id: str,
        record: "protocols.RoundRecord",
        checkpoint: "CheckpointRow | None" = None,
        kept: Collection[int] = (),
    ) -> None:
        """Write a finished round, its devices and events, its checkpoint and the run's totals, in one transaction.

        A round that was recorded before is replaced, and later ones are forgotten: so a run resumed from an older
        checkpoint has no duplicates. ``kept``: other rounds whose checkpoints still exist.
        """
        from slimfed.platform.store.rows import write_round  # imports numpy, which listing runs does not need

        with writing(self.engine) as connection:
            write_round(connection, run_id, record, checkpoint, kept, _now())

    def _change(self, run_id: str, states: Sequence[str], values: Mapping[str, Any]) -> bool:
        """Change a run that is in one of ``states``; False if it is not."""
        with writing(self.engine) as connection:
            query = update(Run).where(Run.id == run_id, Run.status.in_(states)).values(**storable(Run, values))
            return connection.execute(query).rowcount > 0

    def _update(self, run_id: str, **values: Any) -> None:
        with writing(self.engine) as connection:
            connection.execute(update(Run).where(Run.id == run_id).values(**storable(Run, values)))


def upgrade(url: str, home: Path) -> tuple[str | None, str]:
    """Bring a store to this slimfed's revision; returns the revisions before (None: empty) and after.

    Raises ``InputError`` if the store cannot be reached or a newer slimfed wrote it.
    """
    address = resolve_url(url, home)
    engine = open_engine(address)
    try:
        return revisions.migrate(engine, address)
    finally:
        engine.dispose()


def _changed(connection: Connection, run_id: str, change: Update) -> bool:
    """True if ``change`` changed the run, whose process, and so its progress, then is another or none."""
    if not connection.execute(change).rowcount:
        return False
    connection.execute(delete(Progress).where(Progress.run_id == run_id))
    return True


def _preparing(run_id: str, now: datetime) -> dict[str, Any]:
    """The progress of a run whose process has just begun."""
    nothing = dict.fromkeys(("round", "devices", "devices_done", "rows", "rows_done", "share"), 0)
    return {"run_id": run_id, "phase": "preparing", **nothing, "began_at": now, "updated_at": now}


def _as_seen(run: Any) -> list[Any]:
    """Conditions that a run is still in the state in which it was read."""
    same = (Run.status, Run.pid, Run.host, Run.stop_requested)
    return [Run.id == run.id, *(column.is_not_distinct_from(getattr(run, column.key)) for column in same)]


def _without_password(job: Mapping[str, Any]) -> dict[str, Any]:
    """The job without the store's password."""
    url = job["store"]["url"]
    return {**job, "store": {**job["store"], "url": shown(make_url(url)) if "://" in url else url}}


def _now() -> datetime:
    return datetime.now(UTC)
