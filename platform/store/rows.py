"""The rows of a finished round, and the run's totals over all rounds."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from slimfed.platform.store.rollups import block_rows, forget_sums, sum_up_round
from slimfed.platform.store.schema import Assignment, BlockLeft, Checkpoint, Evaluation, Event, Node, Round, Run
from slimfed.strategies import protocols
from slimfed.strategies.schedule import sparsity_after

_COURSE_POINTS = 32
_MEASURES = ("accuracy", "loss", "macro_f1", "calibration_error", "exact_match", "rouge_l", "bleu")
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
    connection.execute(insert(Round), [_round_row(connection, run_id, record, now)])
    if record.devices:
        connection.execute(insert(Assignment), [_device_row(run_id, each, record.removed) for each in record.devices])
        connection.execute(insert(BlockLeft), block_rows(run_id, record.round, record.devices))
        sum_up_round(connection, run_id, record.round)
    if record.evaluation is not None:
        connection.execute(insert(Evaluation), [_evaluation_row(run_id, record, record.evaluation)])
    if record.events:
        connection.execute(insert(Event), [event_row(run_id, event, now) for event in record.events])
    if record.nodes:
        _meet(connection, run_id, record, now)
    if checkpoint is not None:
        _replace_checkpoints(connection, run_id, checkpoint, kept)
    sum_up_run(connection, run_id)
    connection.execute(update(Run).where(Run.id == run_id).values(heartbeat_at=now))


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
    """Update the contact times of this round's nodes; other nodes keep theirs."""
    rows = [
        {"run_id": run_id, "node": str(node), "round": record.round, "devices": devices, "last_contact": now}
        for node, devices in record.nodes.items()
    ]
    connection.execute(delete(Node).where(Node.run_id == run_id, Node.node.in_([row["node"] for row in rows])))
    connection.execute(insert(Node), rows)


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
    values |= {name: _newest(connection, run_id, getattr(Evaluation, name)) for name in (*_MEASURES, *_COUNTS)}
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
        "aggregation_error_deviation": _finite(record.aggregation_error_deviation),
        "joules": _finite(record.joules),
        "epsilon": _finite(record.epsilon),
        "peak_memory_bytes": max((int(memory) for memory in _peaks(record.devices)), default=None),
        "accepted": sum(each.report is not None for each in record.devices),
        "rejected": sum(each.status == "rejected" for each in record.devices),
        "slowest_device": _slowest(record.devices),
    }


def _peaks(devices: Sequence[protocols.DeviceRecord]) -> list[float]:
    """Bytes that the accepted devices' training needed."""
    return [each.report.workload.peak_memory_bytes for each in devices if each.report]


def _slowest(devices: Sequence[protocols.DeviceRecord]) -> int | None:
    """The accepted device that the round waited for; the first of equals."""
    times = [(each.completion.seconds, each.assignment.device) for each in devices if each.report and each.completion]
    return min(times, key=lambda pair: (-pair[0], pair[1]))[1] if times else None


def _device_row(run_id: str, record: protocols.DeviceRecord, removed: float) -> dict[str, Any]:
    assignment, result, completion = record.assignment, record.report, record.completion
    before = assignment.structure.sparsity
    evaluation = result.evaluation if result else None
    return {
        "run_id": run_id,
        "round": int(assignment.round),
        "device": int(assignment.device),
        "status": record.status,
        "rank": int(assignment.rank),
        "local_steps": int(assignment.local_steps),
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
        # SQLite has no NaN, so a NaN loss is stored as infinity.
        "loss": math.inf if loss is None else loss,
        "accuracy": float(evaluation.accuracy),
        "examples": int(evaluation.examples),
        "macro_f1": _finite(evaluation.macro_f1),
        "calibration_error": _finite(evaluation.calibration_error),
        "exact_match": _finite(evaluation.exact_match),
        "rouge_l": _finite(evaluation.rouge_l),
        "bleu": _finite(evaluation.bleu),
        "generated": evaluation.generated,
        "test_examples": evaluation.test_examples,
        "sparsity": float(record.global_sparsity),
    }


def event_row(run_id: str, event: protocols.Event, now: datetime) -> dict[str, Any]:
    """An event as a row."""
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
    """A Python float; None for NaN and Inf, which databases treat differently."""
    return float(value) if value is not None and math.isfinite(value) else None
