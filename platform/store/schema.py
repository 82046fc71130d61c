"""The tables. One run is one row of ``runs``, to which all other rows refer. Times are UTC; virtual time is in seconds.

Changing a table means a new Alembic revision in ``migrations/``; a test compares the two.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
    false,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# Byte counts exceed PostgreSQL's INTEGER of 32 bits.
Bytes = Annotated[int, mapped_column(BigInteger)]


class Moment(TypeDecorator[datetime]):
    """A time with its zone, in UTC; SQLite does not store zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To the database: always UTC. Raises ``ValueError`` for a time without a zone."""
        if value is not None and value.tzinfo is None:
            raise ValueError(f"a time needs its zone: {value}")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """From the database: always UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


NEWEST_REVISION = "0016"
"""The last of ``migrations/versions``; a new migration changes it."""


class Base(DeclarativeBase):
    """Declarative base of all tables."""

    type_annotation_map: ClassVar = {dict[str, Any]: JSON, list[str]: JSON, list[float]: JSON, datetime: Moment()}


class Run(Base):
    """One job execution. ``status``: queued, created, running, done, failed, stopped. ``task``: classification or
    causal-lm.

    Measures from ``accuracy`` to ``sparsity`` are the newest ones, NULL where nothing was measured. Those of the global
    model stand on ``examples`` of the ``test_examples`` of the test split, both NULL in a run of an older version.
    Those from ``virtual_seconds`` on are sums over the rounds, ``joules`` NULL if one round's energy is not known.
    ``epsilon``: privacy spent after the newest round, NULL without privacy. ``sweep``: the name of the sweep that made
    the run. ``evaluated_on``: the split that the measures are of, "test" or "validation". ``base_accuracy``: of the
    untuned model, in round 0; ``majority``: of the most frequent class on the same examples; ``held_out_accuracy``: on
    the test split after the last round, if rounds are evaluated on a validation split. ``reference``: what a run of
    reference shows ("local" or "central") of the run ``reference_of``. ``course``: the global model's
    accuracies, oldest first, thinned to a few dozen, for lists. ``tags``, ``notes`` and ``archived`` are set by the
    user.
    """

    __tablename__ = "runs"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    method: Mapped[str] = mapped_column(String(40))
    task: Mapped[str] = mapped_column(String(20), server_default="classification")
    sweep: Mapped[str | None] = mapped_column(String(200), index=True)
    status: Mapped[str] = mapped_column(String(20), index=True)
    cause: Mapped[str | None] = mapped_column(Text)
    job: Mapped[dict[str, Any]]
    folder: Mapped[str] = mapped_column(Text)
    seed: Mapped[int]
    rounds: Mapped[int]
    rounds_done: Mapped[int] = mapped_column(default=0)
    devices: Mapped[int]
    target_sparsity: Mapped[float]
    created_at: Mapped[datetime] = mapped_column(index=True)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    heartbeat_at: Mapped[datetime | None]
    stop_requested: Mapped[bool] = mapped_column(default=False)
    pid: Mapped[int | None]
    host: Mapped[str | None] = mapped_column(String(200))
    accuracy: Mapped[float | None]
    loss: Mapped[float | None]
    macro_f1: Mapped[float | None]
    calibration_error: Mapped[float | None]
    exact_match: Mapped[float | None]
    rouge_l: Mapped[float | None]
    bleu: Mapped[float | None]
    examples: Mapped[int | None]
    test_examples: Mapped[int | None]
    bits_per_byte: Mapped[float | None]
    accuracy_normalised: Mapped[float | None]
    device_accuracy_mean: Mapped[float | None]
    sparsity: Mapped[float | None]
    virtual_seconds: Mapped[float] = mapped_column(default=0.0)
    wall_seconds: Mapped[float] = mapped_column(default=0.0)
    joules: Mapped[float | None]
    epsilon: Mapped[float | None]
    bytes_up: Mapped[Bytes] = mapped_column(default=0)
    bytes_down: Mapped[Bytes] = mapped_column(default=0)
    rejected_updates: Mapped[int] = mapped_column(default=0)
    evaluated_on: Mapped[str] = mapped_column(String(20), server_default="test")
    base_accuracy: Mapped[float | None]
    majority: Mapped[float | None]
    held_out_accuracy: Mapped[float | None]
    reference: Mapped[str | None] = mapped_column(String(20))
    reference_of: Mapped[str | None] = mapped_column(String(40), index=True)
    course: Mapped[list[float] | None]
    tags: Mapped[list[str] | None]
    notes: Mapped[str | None] = mapped_column(Text)
    archived: Mapped[bool] = mapped_column(server_default=false())


class Progress(Base):
    """Where an unfinished run is at this moment: one row a run, replaced at most once a second, gone when the run ends.

    ``phase``: one of ``strategies.progress.Phase``. ``round``: the one under way, 0 before the first. ``devices_done``
    of its ``devices`` are trained. ``rows_done`` of ``rows`` texts or prompts are evaluated, 0 of 0 outside an
    evaluation. ``share``: part of the round that is done, by time, in [0, 1]. ``began_at``: when the round began, or
    the preparation. ``seconds_left``: of the whole run at ``updated_at``, NULL while nothing has been measured.
    """

    __tablename__ = "progress"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    phase: Mapped[str] = mapped_column(String(20))
    round: Mapped[int]
    devices: Mapped[int]
    devices_done: Mapped[int]
    rows: Mapped[int]
    rows_done: Mapped[int]
    share: Mapped[float]
    seconds_left: Mapped[float | None]
    began_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Device(Base):
    """One data owner of a run: its class (profile name) and number of examples."""

    __tablename__ = "devices"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    device: Mapped[int] = mapped_column(primary_key=True)
    profile: Mapped[str] = mapped_column(String(60))
    examples: Mapped[int]


class Round(Base):
    """One finished round, with the fleet's totals of that round (not cumulative, but for ``virtual_clock``).

    ``joules``: NULL if the clock does not know the energy. ``epsilon``: privacy spent so far, NULL without.
    ``peak_memory_bytes``: of the device that needed most.
    ``aggregation_error``: relative distance of the result from the exact mean of the updates, NULL if there is none;
    ``aggregation_error_deviation``: the standard error of this figure, 0 if it is exact, NULL in runs of slimfed 0.1.
    ``asked``: devices that took part, which have a row in ``assignments``; a device that was asked and stayed silent
    has one, too, with its status, and one that was not asked has none. ``available``: devices that could have been
    asked. ``waited_seconds``: the part of ``virtual_seconds`` in which no device was available. All three are NULL in
    runs of older versions, in which all devices took part. Where rounds do not wait for all devices: ``late``, those of
    the ``accepted`` updates that an earlier round asked for; ``staleness``, the mean over the accepted ones of the
    rounds that they are late; ``in_flight``, updates that had not arrived when the round closed. NULL where rounds
    wait.
    """

    __tablename__ = "rounds"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True)
    finished_at: Mapped[datetime]
    train_loss: Mapped[float | None]
    sparsity: Mapped[float]
    global_sparsity: Mapped[float]
    device_accuracy_mean: Mapped[float | None]
    virtual_seconds: Mapped[float]
    virtual_clock: Mapped[float]
    wall_seconds: Mapped[float]
    bytes_up: Mapped[Bytes]
    bytes_down: Mapped[Bytes]
    joules: Mapped[float | None]
    epsilon: Mapped[float | None]
    peak_memory_bytes: Mapped[Bytes | None]
    aggregation_error: Mapped[float | None]
    aggregation_error_deviation: Mapped[float | None]
    accepted: Mapped[int]
    rejected: Mapped[int]
    slowest_device: Mapped[int | None]
    asked: Mapped[int | None]
    available: Mapped[int | None]
    waited_seconds: Mapped[float | None]
    late: Mapped[int | None]
    staleness: Mapped[float | None]
    in_flight: Mapped[int | None]


class Assignment(Base):
    """One device in one round: assignment, status and results.

    A device whose update came late has two rows: with the status "in-flight" in the round that asked it, and with its
    results in the round in which the update arrived, ``staleness`` rounds later (0: in time; NULL: none arrived, or in
    older versions).
    ``local_steps``: optimiser steps that it was given, NULL in rounds of slimfed 0.1. ``effective_rank``: mean over the
    modules of the ranks that its adapter has not switched off (SoRA's gates).

    ``accuracy``, ``test_loss``, ``macro_f1``, ``calibration_error``: its own model on the test split, where measured.
    """

    __tablename__ = "assignments"
    # Covers the heat map, which then need not visit the rows themselves.
    __table_args__ = (Index("ix_assignments_run_device", "run_id", "device", "round", "sparsity", "rank"),)

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True)
    device: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(String(20))
    rank: Mapped[int]
    local_steps: Mapped[int | None]
    effective_rank: Mapped[float | None]
    pruning_step: Mapped[float]
    sparsity: Mapped[float]
    reward: Mapped[float | None]
    loss_before: Mapped[float | None]
    loss_after: Mapped[float | None]
    accuracy: Mapped[float | None]
    test_loss: Mapped[float | None]
    macro_f1: Mapped[float | None]
    calibration_error: Mapped[float | None]
    examples: Mapped[int | None]
    download_seconds: Mapped[float | None]
    compute_seconds: Mapped[float | None]
    upload_seconds: Mapped[float | None]
    measured_seconds: Mapped[float | None]
    staleness: Mapped[int | None]
    flops: Mapped[float | None]
    peak_memory_bytes: Mapped[Bytes | None]
    joules: Mapped[float | None]
    bytes_down: Mapped[Bytes]
    bytes_up: Mapped[Bytes]


class ClassRound(Base):
    """The devices of one class in one round, summed up from ``assignments`` when the round is written.

    ``devices``: how many took part; ``done``: how many finished. The rest are means over those of whom it is known:
    over all for sparsity and rank, over those with a completion time for the seconds; ``slowest_seconds`` is a maximum.
    """

    __tablename__ = "class_rounds"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True)
    profile: Mapped[str] = mapped_column(String(60), primary_key=True)
    devices: Mapped[int]
    done: Mapped[int]
    sparsity: Mapped[float]
    rank: Mapped[float]
    reward: Mapped[float | None]
    download_seconds: Mapped[float | None]
    compute_seconds: Mapped[float | None]
    upload_seconds: Mapped[float | None]
    slowest_seconds: Mapped[float | None]


class Pull(Base):
    """Pulls of the bandits of one class in one round: their number and the sum of rewards.

    ``step`` counts pruning steps in 40ths, to the nearest: 4 stands for steps of about 0.1.
    """

    __tablename__ = "pulls"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True)
    profile: Mapped[str] = mapped_column(String(60), primary_key=True)
    rank: Mapped[int] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    pulls: Mapped[int]
    reward: Mapped[float]


class BlockLeft(Base):
    """Kept units of one block of the model after a round, of the devices that took part in it.

    ``kept``: mean units of a device; ``shares``: one byte for each of at most 64 equal stretches of the block's units,
    in order: the share of (device, unit) pairs that are kept, 255 for all of them.
    """

    __tablename__ = "blocks"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True)
    block: Mapped[int] = mapped_column(primary_key=True)
    layer: Mapped[int]
    kind: Mapped[str] = mapped_column(String(20))
    units: Mapped[int]
    kept: Mapped[float]
    shares: Mapped[bytes] = mapped_column(LargeBinary)


class Node(Base):
    """A Flower node that has replied in a run: time and round of its last reply, and its number of devices.

    ``node`` is Flower's number for it, which outgrows 63 bits.
    """

    __tablename__ = "nodes"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    node: Mapped[str] = mapped_column(String(20), primary_key=True)
    round: Mapped[int]
    devices: Mapped[int]
    last_contact: Mapped[datetime]


class Evaluation(Base):
    """The pruned global model on the test split after a round (round 0: before training).

    The columns are those of ``clients.update.Evaluation``; NULL where a measure does not belong to the task.
    ``majority``: in round 0, the accuracy of the class that most training texts have. ``held_out``: after the last
    round, the measures on the test split if the others are of a validation split. ``samples``: some of the completions
    that were written (``clients.update.Sample``), NULL where none were.
    """

    __tablename__ = "evaluations"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True)
    loss: Mapped[float]
    accuracy: Mapped[float]
    examples: Mapped[int]
    macro_f1: Mapped[float | None]
    calibration_error: Mapped[float | None]
    exact_match: Mapped[float | None]
    rouge_l: Mapped[float | None]
    bleu: Mapped[float | None]
    generated: Mapped[int | None]
    test_examples: Mapped[int | None]
    majority: Mapped[float | None]
    held_out: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    bits_per_byte: Mapped[float | None]
    accuracy_normalised: Mapped[float | None]
    samples: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON(none_as_null=True))
    sparsity: Mapped[float]


class Event(Base):
    """A rejected update, a dropout, a repeated round, a failure: cause and remedy in words."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_run_round", "run_id", "round"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    at: Mapped[datetime]
    round: Mapped[int]
    device: Mapped[int | None]
    kind: Mapped[str] = mapped_column(String(40))
    cause: Mapped[str] = mapped_column(Text)
    remedy: Mapped[str] = mapped_column(Text)


class Checkpoint(Base):
    """The newest complete checkpoint folder of each round that has one."""

    __tablename__ = "checkpoints"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[str] = mapped_column(Text)
    bytes: Mapped[Bytes]
    digest: Mapped[str] = mapped_column(String(64))
