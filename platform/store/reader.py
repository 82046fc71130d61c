"""Reading the store, for the command line and other programs. Sums and selections are made in SQL."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Row, Select, func, select

from slimfed.clients.errors import InputError
from slimfed.platform.store.schema import Assignment, Checkpoint, Device, Evaluation, Event, Progress, Round, Run

if TYPE_CHECKING:
    import numpy as np

AnyRow = Row[*tuple[Any, ...]]
Rows = Sequence[AnyRow]

_RUN_COLUMNS = [column for column in Run.__table__.columns if column.name != "job"]


@dataclass(frozen=True)
class HeatMap:
    """Sparsity and rank over rounds and devices, each float [rounds, devices]; NaN where nothing was recorded."""

    rounds: tuple[int, ...]
    devices: tuple[int, ...]
    profiles: tuple[str, ...]
    sparsity: "np.ndarray"
    rank: "np.ndarray"


@dataclass(frozen=True)
class Pulse:
    """Values that change whenever a run has new content."""

    status: str
    stop_requested: bool
    archived: bool
    preparing: bool
    newest_round: int
    newest_event: int


class Reader:
    """Queries on the runs of one store. Rows have the columns of ``schema.py`` as attributes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def runs(
        self,
        limit: int | None = 50,
        offset: int = 0,
        status: Collection[str] = (),
        method: str | None = None,
        name: str | None = None,
        sweep: str | None = None,
        archived: bool | None = None,
    ) -> Rows:
        """Runs without their jobs, newest first. ``name``: part of the run's name; ``sweep``: exactly its sweep."""
        query = select(*_RUN_COLUMNS).order_by(Run.created_at.desc(), Run.id.desc()).limit(limit).offset(offset)
        if status:
            query = query.where(Run.status.in_(status))
        if method is not None:
            query = query.where(Run.method == method)
        if name is not None:
            query = query.where(Run.name.contains(name, autoescape=True))
        if sweep is not None:
            query = query.where(Run.sweep == sweep)
        if archived is not None:
            query = query.where(Run.archived.is_(archived))
        return self._rows(query)

    def find_run(self, wanted: str) -> AnyRow:
        """The run with this id, the only one whose id begins so, or the newest ("last"); its job included.

        Raises ``InputError`` if there is none or more than one.
        """
        query = select(Run.__table__)
        if wanted == "last":
            found = self._rows(query.order_by(Run.created_at.desc(), Run.id.desc()).limit(1))
            if not found:
                raise InputError("run 'last': the store has no runs yet")
            return found[0]
        # LIKE ignores case in SQLite, so the prefix is compared as a range of ids instead.
        after = wanted[:-1] + chr(ord(wanted[-1]) + 1) if wanted else None
        found = self._rows(query.where(Run.id >= wanted, Run.id < after).order_by(Run.id).limit(6)) if after else []
        exact = [row for row in found if row.id == wanted]
        if len(exact or found) == 1:
            return (exact or found)[0]
        if not found:
            raise InputError(f"run {wanted!r}: there is no such run; `slimfed runs` lists them, 'last' is the newest")
        some = ", ".join(row.id for row in found[:5]) + (", ..." if len(found) > 5 else "")
        raise InputError(f"run {wanted!r}: several runs begin so: {some}; give more of the id")

    def runs_like(self, seed: int, method: str, rounds: int, devices: int, sweep: str | None = None) -> Rows:
        """Runs with these figures, newest first, with their jobs, for comparison with a wanted job."""
        query = select(Run.__table__).where(
            Run.seed == seed, Run.method == method, Run.rounds == rounds, Run.devices == devices
        )
        if sweep is not None:
            query = query.where(Run.sweep == sweep)
        return self._rows(query.order_by(Run.created_at.desc(), Run.id.desc()))

    def references(self, run_id: str) -> Rows:
        """The runs of reference that were made of a run, newest first, without their jobs."""
        query = select(*_RUN_COLUMNS).where(Run.reference_of == run_id)
        return self._rows(query.order_by(Run.created_at.desc(), Run.id.desc()))

    def rounds(self, run_id: str, after: int = 0) -> Rows:
        """Finished rounds with a number above ``after``, oldest first."""
        query = select(Round.__table__).where(Round.run_id == run_id, Round.round > after)
        return self._rows(query.order_by(Round.round))

    def global_sparsity(self, run_id: str) -> float | None:
        """Sparsity of the global model after the newest round; None before the first."""
        query = select(Round.global_sparsity).where(Round.run_id == run_id).order_by(Round.round.desc()).limit(1)
        return next((row.global_sparsity for row in self._rows(query)), None)

    def evaluations(self, run_id: str) -> Rows:
        """The global model on the test split, oldest first."""
        columns = [column for column in Evaluation.__table__.columns if column.name != "samples"]
        return self._rows(select(*columns).where(Evaluation.run_id == run_id).order_by(Evaluation.round))

    def devices(self, run_id: str) -> Rows:
        """The devices of a run: device, profile and examples."""
        return self._rows(select(Device.__table__).where(Device.run_id == run_id).order_by(Device.device))

    def device_rows(self, run_id: str, round: int | None = None, limit: int | None = None) -> Rows:
        """The devices of one round (None: the newest) with ``profile``, by device."""
        newest = select(func.max(Round.round)).where(Round.run_id == run_id).scalar_subquery()
        query = (
            select(Assignment.__table__, Device.profile)
            .outerjoin(Device, (Device.run_id == Assignment.run_id) & (Device.device == Assignment.device))
            .where(Assignment.run_id == run_id, Assignment.round == (newest if round is None else round))
        )
        return self._rows(query.order_by(Assignment.device).limit(limit))

    def device_history(self, run_id: str, device: int) -> Rows:
        """One device through all rounds, oldest first."""
        query = select(Assignment.__table__).where(Assignment.run_id == run_id, Assignment.device == device)
        return self._rows(query.order_by(Assignment.round))

    def slowest_devices(self, run_id: str) -> Rows:
        """Of each round: ``round``, ``device``, ``profile``, and its seconds of download, compute and upload."""
        at_work = (
            (Assignment.run_id == Round.run_id)
            & (Assignment.round == Round.round)
            & (Assignment.device == Round.slowest_device)
        )
        return self._rows(
            select(
                Round.round,
                Assignment.device,
                Device.profile,
                Assignment.download_seconds,
                Assignment.compute_seconds,
                Assignment.upload_seconds,
            )
            .join(Assignment, at_work)
            .outerjoin(Device, (Device.run_id == Round.run_id) & (Device.device == Round.slowest_device))
            .where(Round.run_id == run_id)
            .order_by(Round.round)
        )

    def events(self, run_id: str, limit: int | None = 200, after: int = 0) -> Rows:
        """Events with an id above ``after``, newest first."""
        query = select(Event.__table__).where(Event.run_id == run_id, Event.id > after)
        return self._rows(query.order_by(Event.id.desc()).limit(limit))

    def courses(self, run_ids: Collection[str]) -> tuple[Rows, Rows]:
        """Rounds and evaluations of several runs, by run and round, for comparisons."""
        rounds = select(Round.__table__).where(Round.run_id.in_(run_ids)).order_by(Round.run_id, Round.round)
        measured = select(Evaluation.__table__).where(Evaluation.run_id.in_(run_ids))
        return self._rows(rounds), self._rows(measured.order_by(Evaluation.run_id, Evaluation.round))

    def checkpoints(self, run_id: str) -> Rows:
        """Complete checkpoints on disk, newest first."""
        return self._rows(
            select(Checkpoint.__table__).where(Checkpoint.run_id == run_id).order_by(Checkpoint.round.desc())
        )

    def heat_map(self, run_id: str, devices: int = 200, rounds: int = 200) -> HeatMap:
        """At most about ``devices`` devices, evenly chosen within each class, and ``rounds`` rounds with the newest."""
        with self._connection() as connection:
            chosen = _choose_devices(connection, run_id, devices)
            numbers = _choose_rounds(connection, run_id, rounds)
            query = select(Assignment.round, Assignment.device, Assignment.sparsity, Assignment.rank).where(
                Assignment.run_id == run_id,
                Assignment.device.in_([row.device for row in chosen]),
                Assignment.round.in_(numbers),
            )
            cells = connection.execute(query).all()
        shape = (len(numbers), len(chosen))
        import numpy as np  # imported here, as listing runs does not need it

        sparsity, rank = np.full(shape, np.nan), np.full(shape, np.nan)
        row_of = {number: index for index, number in enumerate(numbers)}
        column_of = {row.device: index for index, row in enumerate(chosen)}
        for number, device, share, width in cells:
            place = row_of[number], column_of[device]
            sparsity[place], rank[place] = share, width
        return HeatMap(
            tuple(numbers),
            tuple(row.device for row in chosen),
            tuple(row.profile for row in chosen),
            sparsity,
            rank,
        )

    def seconds_per_round(self, run_ids: Collection[str]) -> dict[str, float]:
        """Median wall seconds of a round, without the first, which includes set-up; runs of one round are missing."""
        ranked = (
            select(
                Round.run_id,
                Round.wall_seconds,
                func.row_number().over(partition_by=Round.run_id, order_by=Round.wall_seconds).label("place"),
                func.count().over(partition_by=Round.run_id).label("rounds"),
            )
            .where(Round.run_id.in_(run_ids), Round.round > 1)
            .subquery()
        )
        middle = (2 * ranked.c.place >= ranked.c.rounds) & (2 * ranked.c.place <= ranked.c.rounds + 2)
        query = select(ranked.c.run_id, func.avg(ranked.c.wall_seconds)).where(middle).group_by(ranked.c.run_id)
        return {run_id: float(seconds) for run_id, seconds in self._rows(query)}

    def progress(self, run_ids: Collection[str]) -> dict[str, AnyRow]:
        """Where each of these runs is at this moment (columns of ``Progress``); runs without process are missing."""
        if not run_ids:
            return {}
        return {row.run_id: row for row in self._rows(select(Progress.__table__).where(Progress.run_id.in_(run_ids)))}

    def pulse(self, run_id: str) -> Pulse | None:
        """One small row by which a watcher detects changes; None if there is no such run."""
        newest_round = select(func.max(Round.round)).where(Round.run_id == run_id).scalar_subquery()
        newest_event = select(func.max(Event.id)).where(Event.run_id == run_id).scalar_subquery()
        query = select(
            Run.status,
            Run.stop_requested,
            Run.archived,
            select(Progress.run_id).where(Progress.run_id == run_id, Progress.phase == "preparing").exists(),
            func.coalesce(newest_round, 0),
            func.coalesce(newest_event, 0),
        ).where(Run.id == run_id)
        return next((Pulse(*row) for row in self._rows(query)), None)

    def event_counts(self, run_id: str) -> dict[str, int]:
        """Number of events of each kind."""
        query = select(Event.kind, func.count()).where(Event.run_id == run_id).group_by(Event.kind)
        return {kind: int(count) for kind, count in self._rows(query)}

    def slowest_rows(self, run_id: str, limit: int) -> Rows:
        """As :meth:`device_rows` of the newest round, but the slowest first and those that never finished last."""
        newest = select(func.max(Round.round)).where(Round.run_id == run_id).scalar_subquery()
        took = Assignment.download_seconds + Assignment.compute_seconds + Assignment.upload_seconds
        query = (
            select(Assignment.__table__, Device.profile)
            .outerjoin(Device, (Device.run_id == Assignment.run_id) & (Device.device == Assignment.device))
            .where(Assignment.run_id == run_id, Assignment.round == newest)
        )
        return self._rows(query.order_by(took.desc().nulls_last(), Assignment.device).limit(limit))

    def _rows(self, query: Select[*tuple[Any, ...]]) -> Rows:
        with self._connection() as connection:
            return connection.execute(query).all()

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            yield connection


def _choose_devices(connection: Connection, run_id: str, most: int) -> Rows:
    """Every k-th device of each class that took part in a round, classes in order of their first device."""
    asked = select(Assignment.run_id).where(Assignment.run_id == run_id, Assignment.device == Device.device).exists()
    total = connection.scalar(select(func.count(Device.device)).where(Device.run_id == run_id, asked)) or 0
    step = max(-(-total // most), 1)
    place = (func.row_number().over(partition_by=Device.profile, order_by=Device.device) - 1).label("place")
    numbered = select(Device.device, Device.profile, place).where(Device.run_id == run_id, asked).subquery()
    query = select(numbered.c.device, numbered.c.profile).where(numbered.c.place % step == 0)
    return connection.execute(query.order_by(numbered.c.profile, numbered.c.device)).all()


def _choose_rounds(connection: Connection, run_id: str, most: int) -> list[int]:
    """Every k-th round, counted back from the newest."""
    numbers = list(connection.scalars(select(Round.round).where(Round.run_id == run_id).order_by(Round.round)))
    step = max(-(-len(numbers) // most), 1)
    return numbers[::-1][::step][::-1]
