"""Writing to the store. One process writes a run; any number of others read (``reader.py``) or ask it to stop."""

import math
import os
import socket
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import URL, Connection, Engine, delete, func, insert, make_url, select, update

from slimfed.platform.job.job import Job, job_to_dict
from slimfed.platform.store import revisions
from slimfed.platform.store.database import open_engine, resolve_url, shown, writing
from slimfed.platform.store.rollups import block_rows, forget_sums, sum_up_round
from slimfed.platform.store.schema import Assignment, BlockLeft, Checkpoint, Device, Evaluation, Event, Node, Round, Run
from slimfed.strategies import protocols
from slimfed.strategies.schedule import sparsity_after

FinalStatus = Literal["done", "failed", "stopped"]
FirstStatus = Literal["queued", "created"]

UNFINISHED = ("queued", "created", "running")

_COURSE_POINTS = 32
_MEASURES = ("accuracy", "loss", "macro_f1", "calibration_error", "exact_match", "rouge_l", "bleu")


@dataclass(frozen=True)
class CheckpointRow:
    """A complete checkpoint folder on disk: its size and SHA-256 digest."""

    round: int
    path: Path
    bytes: int
    digest: str


class Store:
    """One open store. Every method is one transaction; all raise ``sqlalchemy.exc.SQLAlchemyError`` on failure."""

    def __init__(self, engine: Engine, url: URL) -> None:
        self.engine = engine
        self._url = url

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
        """Where the store is, without password: for screens and JSON."""
        return shown(self._url)

    def close(self) -> None:
        """Give back the connections."""
        self.engine.dispose()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def create_run(
        self, run_id: str, job: Job, folder: Path, sweep: str | None = None, status: FirstStatus = "created"
    ) -> None:
        """Add a run; ``sweep`` is the name of the sweep that it belongs to. A queued one waits for this computer."""
        row = {
            "id": run_id,
            "name": job.name,
            "method": job.method.name,
            "task": job.model.task,
            "sweep": sweep,
            "status": status,
            "host": socket.gethostname(),
            "job": _without_password(job_to_dict(job)),
            "folder": str(folder),
            "seed": job.seed,
            "rounds": job.training.rounds,
            "devices": job.fleet.devices,
            "target_sparsity": job.method.target_sparsity,
            "created_at": _now(),
        }
        with writing(self.engine) as connection:
            connection.execute(insert(Run), [row])

    def set_devices(self, run_id: str, devices: Iterable[tuple[int, str, int]]) -> None:
        """Say who takes part: (device, profile, examples) of every device; replaces what was said before."""
        rows = [
            {"run_id": run_id, "device": device, "profile": profile, "examples": examples}
            for device, profile, examples in devices
        ]
        with writing(self.engine) as connection:
            connection.execute(delete(Device).where(Device.run_id == run_id))
            connection.execute(insert(Device), rows)

    def mark_running(self, run_id: str) -> None:
        """This process computes the run from now on, for the first time or again after ``resume``."""
        now = _now()
        values = {
            "status": "running",
            "cause": None,
            "started_at": func.coalesce(Run.started_at, now),
            "finished_at": None,
            "heartbeat_at": now,
            "stop_requested": False,
            "pid": os.getpid(),
            "host": socket.gethostname(),
        }
        self._update(run_id, **values)

    def take_over(self, run: Any) -> bool:
        """Become the one process that resumes a run (a row as it was read); False if somebody else was faster.

        Of several that found the run in the same state exactly one succeeds, on whatever computer.
        """
        seen = [column.is_not_distinct_from(getattr(run, column.key)) for column in (Run.status, Run.pid, Run.host)]
        now = _now()
        values = {"status": "running", "heartbeat_at": now, "pid": os.getpid(), "host": socket.gethostname()}
        with writing(self.engine) as connection:
            query = update(Run).where(Run.id == run.id, *seen).values(**values)
            return connection.execute(query).rowcount > 0

    def enqueue(self, run_id: str) -> bool:
        """Let a run wait for this computer again that has stopped, failed or lost its process (the caller knows).

        False if it waits already, is being started, or is done.
        """
        values = {"status": "queued", "cause": None, "finished_at": None, "host": socket.gethostname()}
        return self._change(run_id, ("stopped", "failed", "running"), values)

    def claim(self, run_id: str) -> bool:
        """Take a run from the queue in order to start it. False if somebody else did, or took it out."""
        return self._change(run_id, ("queued",), {"status": "created", "pid": None, "heartbeat_at": None})

    def label(
        self, run_id: str, tags: Sequence[str] | None = None, notes: str | None = None, archived: bool | None = None
    ) -> None:
        """Write what a reader says of a run; None leaves a thing as it is. Tags are kept once each, in order."""
        given = {"tags": None if tags is None else list(dict.fromkeys(tags)), "notes": notes, "archived": archived}
        self._update(run_id, **{name: value for name, value in given.items() if value is not None})

    def heartbeat(self, run_id: str) -> None:
        """The run's process is alive."""
        self._update(run_id, heartbeat_at=_now())

    def finish(self, run_id: str, status: FinalStatus, cause: str | None = None) -> bool:
        """Give an unfinished run its final status and, in words, why. False if it had ended already."""
        values = {"status": status, "cause": cause, "finished_at": _now(), "stop_requested": False}
        return self._change(run_id, UNFINISHED, values)

    def request_stop(self, run_id: str) -> bool:
        """Ask the run's process to stop. False if the run has ended already (or does not exist)."""
        return self._change(run_id, UNFINISHED, {"stop_requested": True})

    def stop_requested(self, run_id: str) -> bool:
        """True once somebody called :meth:`request_stop`."""
        with self.engine.connect() as connection:
            return bool(connection.scalar(select(Run.stop_requested).where(Run.id == run_id)))

    def add_event(self, run_id: str, event: protocols.Event) -> None:
        """Write one event at once."""
        with writing(self.engine) as connection:
            connection.execute(insert(Event), [_event_row(run_id, event, _now())])

    def rewind(self, run_id: str, round: int) -> None:
        """Forget the rounds after ``round``, where a resumed run begins anew. Events stay: they happened."""
        with writing(self.engine) as connection:
            _forget(connection, run_id, after=round)
            _sum_up(connection, run_id)

    def record_round(
        self,
        run_id: str,
        record: protocols.RoundRecord,
        checkpoint: CheckpointRow | None = None,
        kept: Collection[int] = (),
    ) -> None:
        """Write a finished round, its devices and events, its checkpoint and the run's totals, in one transaction.

        A round that was recorded before is replaced, and later ones are forgotten: a run that was resumed from an older
        checkpoint leaves nothing double. ``kept``: other rounds whose checkpoints still exist.
        """
        now = _now()
        with writing(self.engine) as connection:
            _forget_events(connection, run_id, record.round)
            _forget(connection, run_id, after=record.round - 1)
            connection.execute(insert(Round), [_round_row(connection, run_id, record, now)])
            if record.devices:
                connection.execute(
                    insert(Assignment), [_device_row(run_id, each, record.removed) for each in record.devices]
                )
                connection.execute(insert(BlockLeft), block_rows(run_id, record.round, record.devices))
                sum_up_round(connection, run_id, record.round)
            if record.evaluation is not None:
                connection.execute(insert(Evaluation), [_evaluation_row(run_id, record, record.evaluation)])
            if record.events:
                connection.execute(insert(Event), [_event_row(run_id, event, now) for event in record.events])
            if record.nodes:
                _meet(connection, run_id, record, now)
            if checkpoint is not None:
                _replace_checkpoints(connection, run_id, checkpoint, kept)
            _sum_up(connection, run_id)
            connection.execute(update(Run).where(Run.id == run_id).values(heartbeat_at=now))

    def _change(self, run_id: str, states: Sequence[str], values: Mapping[str, Any]) -> bool:
        """Change a run that is in one of ``states``; False if it is not."""
        with writing(self.engine) as connection:
            query = update(Run).where(Run.id == run_id, Run.status.in_(states)).values(**values)
            return connection.execute(query).rowcount > 0

    def _update(self, run_id: str, **values: Any) -> None:
        with writing(self.engine) as connection:
            connection.execute(update(Run).where(Run.id == run_id).values(**values))


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


def _without_password(job: dict[str, Any]) -> dict[str, Any]:
    """The job as everybody who reads the store may see it."""
    url = job["store"]["url"]
    return {**job, "store": {**job["store"], "url": shown(make_url(url)) if "://" in url else url}}


def _now() -> datetime:
    return datetime.now(UTC)


def _forget(connection: Connection, run_id: str, after: int) -> None:
    for table in (Round, Assignment, Evaluation, Checkpoint):
        connection.execute(delete(table).where(table.run_id == run_id, table.round > after))
    forget_sums(connection, run_id, after)


def _forget_events(connection: Connection, run_id: str, round: int) -> None:
    """Of rounds that are replaced: events up to the time that the old version was recorded. Later ones are new."""
    finished = connection.scalar(select(Round.finished_at).where(Round.run_id == run_id, Round.round == round))
    if finished is not None:
        connection.execute(delete(Event).where(Event.run_id == run_id, Event.round == round, Event.at <= finished))


def _replace_checkpoints(connection: Connection, run_id: str, checkpoint: CheckpointRow, kept: Collection[int]) -> None:
    gone = delete(Checkpoint).where(Checkpoint.run_id == run_id, Checkpoint.round.not_in(list(kept)))
    connection.execute(gone)
    connection.execute(
        insert(Checkpoint),
        [
            {
                "run_id": run_id,
                "round": checkpoint.round,
                "path": str(checkpoint.path),
                "bytes": checkpoint.bytes,
                "digest": checkpoint.digest,
            }
        ],
    )


def _meet(connection: Connection, run_id: str, record: protocols.RoundRecord, now: datetime) -> None:
    """The nodes of this round were heard of; of the others the last word stays."""
    rows = [
        {"run_id": run_id, "node": str(node), "round": record.round, "devices": devices, "last_contact": now}
        for node, devices in record.nodes.items()
    ]
    connection.execute(delete(Node).where(Node.run_id == run_id, Node.node.in_([row["node"] for row in rows])))
    connection.execute(insert(Node), rows)


def _sum_up(connection: Connection, run_id: str) -> None:
    """The run's totals, from its rounds; a measure that not every round has is the newest one."""
    rounds = select(
        func.count(),
        func.coalesce(func.sum(Round.virtual_seconds), 0.0),
        func.coalesce(func.sum(Round.wall_seconds), 0.0),
        func.coalesce(func.sum(Round.bytes_up), 0),
        func.coalesce(func.sum(Round.bytes_down), 0),
        func.coalesce(func.sum(Round.rejected), 0),
        func.sum(Round.joules),
        func.count(Round.joules),
    ).where(Round.run_id == run_id)
    done, virtual, wall, up, down, rejected, joules, known = connection.execute(rounds).one()
    values = {
        "rounds_done": int(done),
        "virtual_seconds": float(virtual),
        "wall_seconds": float(wall),
        "bytes_up": int(up),
        "bytes_down": int(down),
        "rejected_updates": int(rejected),
        "joules": float(joules) if joules is not None and known == done else None,
        "epsilon": _newest(connection, run_id, Round.epsilon),
        "sparsity": _newest(connection, run_id, Round.sparsity),
        "device_accuracy_mean": _newest(connection, run_id, Round.device_accuracy_mean),
        "course": _course(connection, run_id),
    }
    values |= {name: _newest(connection, run_id, getattr(Evaluation, name)) for name in _MEASURES}
    connection.execute(update(Run).where(Run.id == run_id).values(**values))


def _course(connection: Connection, run_id: str) -> list[float]:
    """Every k-th accuracy of the global model, counted back from the newest."""
    query = select(Evaluation.accuracy).where(Evaluation.run_id == run_id).order_by(Evaluation.round)
    accuracies = list(connection.scalars(query))
    step = max(-(-len(accuracies) // _COURSE_POINTS), 1)
    return accuracies[::-1][::step][::-1]


def _newest(connection: Connection, run_id: str, column: Any) -> Any:
    table = column.class_
    query = select(column).where(table.run_id == run_id, column.is_not(None)).order_by(table.round.desc()).limit(1)
    return connection.scalar(query)


def _round_row(connection: Connection, run_id: str, record: protocols.RoundRecord, now: datetime) -> dict[str, Any]:
    before = select(func.coalesce(func.sum(Round.virtual_seconds), 0.0)).where(
        Round.run_id == run_id, Round.round < record.round
    )
    return {
        "run_id": run_id,
        "round": record.round,
        "finished_at": now,
        "train_loss": _finite(record.train_loss),
        "sparsity": float(record.sparsity),
        "global_sparsity": float(record.global_sparsity),
        "device_accuracy_mean": _finite(record.device_accuracy_mean),
        "virtual_seconds": float(record.virtual_seconds),
        "virtual_clock": float(connection.scalar(before) or 0.0) + float(record.virtual_seconds),
        "wall_seconds": float(record.wall_seconds),
        "bytes_up": int(record.bytes_up),
        "bytes_down": int(record.bytes_down),
        "aggregation_error": _finite(record.aggregation_error),
        "joules": _finite(record.joules),
        "epsilon": _finite(record.epsilon),
        "peak_memory_bytes": max((int(memory) for memory in _peaks(record.devices)), default=None),
        "accepted": sum(each.update is not None for each in record.devices),
        "rejected": sum(each.status == "rejected" for each in record.devices),
        "slowest_device": _slowest(record.devices),
    }


def _peaks(devices: Sequence[protocols.DeviceRecord]) -> list[float]:
    """Bytes that the accepted devices' training needed."""
    return [each.update.workload.peak_memory_bytes for each in devices if each.update]


def _slowest(devices: Sequence[protocols.DeviceRecord]) -> int | None:
    """The accepted device that the round waited for; the first of equals."""
    times = [(each.completion.seconds, each.assignment.device) for each in devices if each.update and each.completion]
    return min(times, key=lambda pair: (-pair[0], pair[1]))[1] if times else None


def _device_row(run_id: str, record: protocols.DeviceRecord, removed: float) -> dict[str, Any]:
    assignment, result, completion = record.assignment, record.update, record.completion
    before = assignment.structure.sparsity
    evaluation = result.evaluation if result else None
    return {
        "run_id": run_id,
        "round": int(assignment.round),
        "device": int(assignment.device),
        "status": record.status,
        "rank": int(assignment.rank),
        "effective_rank": _finite(result.effective_rank) if result else None,
        "pruning_step": max(0.0, 1 - (1 - assignment.sparsity) / (1 - before)),
        "sparsity": sparsity_after(result.structure.sparsity if result else before, removed),
        "reward": _finite(record.reward),
        "loss_before": _finite(result.loss_before) if result else None,
        "loss_after": _finite(result.loss_after) if result else None,
        "accuracy": _finite(evaluation.accuracy) if evaluation else None,
        "test_loss": _finite(evaluation.loss) if evaluation else None,
        "macro_f1": _finite(evaluation.macro_f1) if evaluation else None,
        "calibration_error": _finite(evaluation.calibration_error) if evaluation else None,
        "examples": int(result.examples) if result else None,
        "download_seconds": _finite(completion.download_seconds) if completion else None,
        "compute_seconds": _finite(completion.compute_seconds) if completion else None,
        "upload_seconds": _finite(completion.upload_seconds) if completion else None,
        "measured_seconds": _finite(result.seconds) if result else None,
        "flops": _finite(result.workload.flops) if result else None,
        "peak_memory_bytes": int(result.workload.peak_memory_bytes) if result else None,
        "joules": _finite(record.joules),
        "bytes_down": int(record.bytes_down),
        "bytes_up": int(record.bytes_up),
    }


def _evaluation_row(run_id: str, record: protocols.RoundRecord, evaluation: Any) -> dict[str, Any]:
    loss = _finite(evaluation.loss)
    return {
        "run_id": run_id,
        "round": record.round,
        # SQLite keeps no NaN; a loss that has no number any more is infinite.
        "loss": math.inf if loss is None else loss,
        "accuracy": float(evaluation.accuracy),
        "examples": int(evaluation.examples),
        "macro_f1": _finite(evaluation.macro_f1),
        "calibration_error": _finite(evaluation.calibration_error),
        "exact_match": _finite(evaluation.exact_match),
        "rouge_l": _finite(evaluation.rouge_l),
        "bleu": _finite(evaluation.bleu),
        "generated": evaluation.generated,
        "sparsity": float(record.global_sparsity),
    }


def _event_row(run_id: str, event: protocols.Event, now: datetime) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "at": now,
        "round": event.round,
        "device": event.device,
        "kind": event.kind[:40],
        "cause": event.cause,
        "remedy": event.remedy,
    }


def _finite(value: float | None) -> float | None:
    """A Python float; None for NaN and Inf, which databases treat each in its own way."""
    return float(value) if value is not None and math.isfinite(value) else None
