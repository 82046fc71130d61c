"""The rows of a finished round, and the run's totals over all rounds."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from slimfed.platform.store.rollups import block_rows, forget_sums, sum_up_round
from slimfed.platform.store.schema import (
    Assignment,
    Base,
    BlockLeft,
    Checkpoint,
    Evaluation,
    Event,
    Node,
    Progress,
    Round,
    Run,
)
from slimfed.platform.store.storable import storable
from slimfed.strategies import protocols
from slimfed.strategies.schedule import sparsity_after

_COURSE_POINTS = 32
_MEASURES = (
    *("accuracy", "loss", "macro_f1", "calibration_error", "exact_match", "rouge_l", "bleu"),
    *("bits_per_byte", "accuracy_normalised"),
)
_COUNTS = ("examples", "test_examples")


@dataclass(frozen=True)
class CheckpointRow:
    """A complete checkpoint folder on disk: its size and SHA-256 digest."""

    round: int
    path: Path
    bytes: int
    digest: str


def write_round(
    connection: Connection,
    run_id: str,
    record: protocols.RoundRecord,
    checkpoint: CheckpointRow | None,
    kept: Collection[int],
    now: datetime,
) -> None:
    """All rows of a finished round, within the transaction of ``connection``; see ``Store.record_round``."""
    _forget_events(connection, run_id, record.round)
    forget_after(connection, run_id, record.round - 1)
    _add(connection, Round, [_round_row(connection, run_id, record, now)])
    if record.devices:
        _add(connection, Assignment, [_device_row(run_id, record, each) for each in record.devices])
        _add(connection, BlockLeft, block_rows(run_id, record.round, record.devices))
        sum_up_round(connection, run_id, record.round)
    if record.evaluation is not None:
        row = _evaluation_row(run_id, record.round, record.evaluation, record.global_sparsity)
        _add(connection, Evaluation, [row | {"held_out": _finite(record.held_out)}])
    if record.events:
        _add(connection, Event, [event_row(run_id, event, now) for event in record.events])
    if record.nodes:
        _meet(connection, run_id, record, now)
    if checkpoint is not None:
        _replace_checkpoints(connection, run_id, checkpoint, kept)
    sum_up_run(connection, run_id)
    connection.execute(update(Run).where(Run.id == run_id).values(heartbeat_at=now))
    _go_on(connection, run_id, record.round + 1, now)


def _go_on(connection: Connection, run_id: str, round: int, now: datetime) -> None:
    """The progress of a run that is computed moves on to ``round``, together with the round before it."""
    nothing = dict.fromkeys(("devices_done", "rows", "rows_done", "share"), 0)
    values = {"phase": "planning", "round": round, **nothing, "began_at": now}
    connection.execute(update(Progress).where(Progress.run_id == run_id).values(**values))


def write_baseline(connection: Connection, run_id: str, baseline: protocols.Baseline) -> None:
    """The row of round 0, within the transaction of ``connection``; see ``Store.record_baseline``."""
    connection.execute(delete(Evaluation).where(Evaluation.run_id == run_id, Evaluation.round == 0))
    row = _evaluation_row(run_id, 0, baseline.evaluation, 0.0)
    _add(connection, Evaluation, [row | {"majority": baseline.majority}])
    sum_up_run(connection, run_id)


def _add(connection: Connection, table: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert ``rows`` within the limits of their columns."""
    connection.execute(insert(table), [storable(table, row) for row in rows])


def forget_after(connection: Connection, run_id: str, after: int) -> None:
    """Delete the records of a run after round ``after``, except events."""
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
    row = {
        "run_id": run_id,
        "round": checkpoint.round,
        "path": str(checkpoint.path),
        "bytes": checkpoint.bytes,
        "digest": checkpoint.digest,
    }
    _add(connection, Checkpoint, [row])


def _meet(connection: Connection, run_id: str, record: protocols.RoundRecord, now: datetime) -> None:
    """Update the contact times of this round's nodes; other nodes keep theirs."""
    rows = [
        {"run_id": run_id, "node": str(node), "round": record.round, "devices": devices, "last_contact": now}
        for node, devices in record.nodes.items()
    ]
    connection.execute(delete(Node).where(Node.run_id == run_id, Node.node.in_([row["node"] for row in rows])))
    _add(connection, Node, rows)


def sum_up_run(connection: Connection, run_id: str) -> None:
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
        "rounds_done": done,
        "virtual_seconds": virtual,
        "wall_seconds": wall,
        "bytes_up": up,
        "bytes_down": down,
        "rejected_updates": rejected,
        "joules": joules if joules is not None and known == done else None,
        "epsilon": _newest(connection, run_id, Round.epsilon),
        "sparsity": _newest(connection, run_id, Round.sparsity),
        "device_accuracy_mean": _newest(connection, run_id, Round.device_accuracy_mean),
        "course": _course(connection, run_id),
    }
    values |= _judged_by(connection, run_id)
    values |= {name: _newest(connection, run_id, getattr(Evaluation, name)) for name in (*_MEASURES, *_COUNTS)}
    connection.execute(update(Run).where(Run.id == run_id).values(**storable(Run, values)))


def _judged_by(connection: Connection, run_id: str) -> dict[str, float | None]:
    """The figures of round 0, and the accuracy on a held-out test split; None where there are none."""
    wanted = select(Evaluation.accuracy, Evaluation.majority).where(Evaluation.run_id == run_id, Evaluation.round == 0)
    base, majority = next(iter(connection.execute(wanted)), (None, None))
    held_out = _newest(connection, run_id, Evaluation.held_out)
    accuracy = held_out["accuracy"] if held_out else None
    return {"base_accuracy": base, "majority": majority, "held_out_accuracy": accuracy}


def _course(connection: Connection, run_id: str) -> list[float]:
    """Every k-th accuracy of the global model after a round, counted back from the newest."""
    trained = (Evaluation.run_id == run_id) & (Evaluation.round > 0)
    query = select(Evaluation.accuracy).where(trained).order_by(Evaluation.round)
    accuracies = list(connection.scalars(query))
    step = max(-(-len(accuracies) // _COURSE_POINTS), 1)
    return accuracies[::-1][::step][::-1]


def _newest(connection: Connection, run_id: str, column: Any) -> Any:
    """The newest value after a finished round; round 0 is none."""
    table = column.class_
    there = (table.run_id == run_id) & (table.round > 0) & column.is_not(None)
    query = select(column).where(there).order_by(table.round.desc()).limit(1)
    return connection.scalar(query)


def _round_row(connection: Connection, run_id: str, record: protocols.RoundRecord, now: datetime) -> dict[str, Any]:
    before = select(func.coalesce(func.sum(Round.virtual_seconds), 0.0)).where(
        Round.run_id == run_id, Round.round < record.round
    )
    return {
        "run_id": run_id,
        "round": record.round,
        "finished_at": now,
        "train_loss": record.train_loss,
        "sparsity": record.sparsity,
        "global_sparsity": record.global_sparsity,
        "device_accuracy_mean": record.device_accuracy_mean,
        "virtual_seconds": record.virtual_seconds,
        "virtual_clock": float(connection.scalar(before) or 0.0) + record.virtual_seconds,
        "wall_seconds": record.wall_seconds,
        "bytes_up": record.bytes_up,
        "bytes_down": record.bytes_down,
        "aggregation_error": record.aggregation_error,
        "aggregation_error_deviation": record.aggregation_error_deviation,
        "joules": record.joules,
        "epsilon": record.epsilon,
        "peak_memory_bytes": max(_peaks(record.devices), default=None),
        "accepted": sum(each.report is not None for each in record.devices),
        "rejected": sum(each.status == "rejected" for each in record.devices),
        "slowest_device": _slowest(record),
        "asked": sum(each.assignment.round == record.round for each in record.devices),
        "available": record.available,
        "waited_seconds": record.waited_seconds,
        **_lateness(record),
    }


def _lateness(record: protocols.RoundRecord) -> dict[str, float | None]:
    """The columns on late updates, of a round that does not wait for all devices."""
    if record.in_flight is None:
        return {}
    late = [record.round - each.assignment.round for each in record.devices if each.report is not None]
    return {
        "late": sum(rounds > 0 for rounds in late),
        "staleness": fmean(late) if late else None,
        "in_flight": record.in_flight,
    }


def _peaks(devices: Sequence[protocols.DeviceRecord]) -> list[float]:
    """Bytes that the accepted devices' training needed."""
    return [each.report.workload.peak_memory_bytes for each in devices if each.report]


def _slowest(record: protocols.RoundRecord) -> int | None:
    """The accepted device that the round waited for longest, of those that it asked; the first of equals."""
    times = [
        (each.completion.seconds, each.assignment.device)
        for each in record.devices
        if each.report and each.completion and each.assignment.round == record.round
    ]
    return min(times, key=lambda pair: (-pair[0], pair[1]))[1] if times else None


def _device_row(run_id: str, round: protocols.RoundRecord, record: protocols.DeviceRecord) -> dict[str, Any]:
    assignment, result, completion = record.assignment, record.report, record.completion
    before = assignment.structure.sparsity
    evaluation = result.evaluation if result else None
    return {
        "run_id": run_id,
        "round": round.round,
        "device": assignment.device,
        "status": record.status,
        "rank": assignment.rank,
        "local_steps": assignment.local_steps,
        "effective_rank": result.effective_rank if result else None,
        "pruning_step": max(0.0, 1 - (1 - assignment.sparsity) / (1 - before)),
        "sparsity": sparsity_after(result.structure.sparsity if result else before, round.removed),
        "reward": record.reward,
        "loss_before": result.loss_before if result else None,
        "loss_after": result.loss_after if result else None,
        "accuracy": evaluation.accuracy if evaluation else None,
        "test_loss": evaluation.loss if evaluation else None,
        "macro_f1": evaluation.macro_f1 if evaluation else None,
        "calibration_error": evaluation.calibration_error if evaluation else None,
        "examples": result.examples if result else None,
        "download_seconds": completion.download_seconds if completion else None,
        "compute_seconds": completion.compute_seconds if completion else None,
        "upload_seconds": completion.upload_seconds if completion else None,
        "measured_seconds": result.seconds if result else None,
        "staleness": round.round - assignment.round if result else None,
        "flops": result.workload.flops if result else None,
        "peak_memory_bytes": result.workload.peak_memory_bytes if result else None,
        "joules": record.joules,
        "bytes_down": record.bytes_down,
        "bytes_up": record.bytes_up,
    }


def _evaluation_row(run_id: str, round: int, evaluation: Any, sparsity: float) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "round": round,
        "loss": evaluation.loss,
        "accuracy": evaluation.accuracy,
        "examples": evaluation.examples,
        "macro_f1": evaluation.macro_f1,
        "calibration_error": evaluation.calibration_error,
        "exact_match": evaluation.exact_match,
        "rouge_l": evaluation.rouge_l,
        "bleu": evaluation.bleu,
        "generated": evaluation.generated,
        "test_examples": evaluation.test_examples,
        "bits_per_byte": evaluation.bits_per_byte,
        "accuracy_normalised": evaluation.accuracy_normalised,
        "samples": None if evaluation.samples is None else [asdict(each) for each in evaluation.samples],
        "sparsity": sparsity,
    }


def _finite(evaluation: Any) -> dict[str, Any] | None:
    """The measures as JSON, which PostgreSQL takes without infinite numbers: those are None."""
    if evaluation is None:
        return None
    infinite = {name for name, value in asdict(evaluation).items() if isinstance(value, float) and not isfinite(value)}
    return {name: None if name in infinite else value for name, value in asdict(evaluation).items()}


def event_row(run_id: str, event: protocols.Event, now: datetime) -> dict[str, Any]:
    """An event as a row."""
    return {
        "run_id": run_id,
        "at": now,
        "round": event.round,
        "device": event.device,
        "kind": event.kind,
        "cause": event.cause,
        "remedy": event.remedy,
    }
