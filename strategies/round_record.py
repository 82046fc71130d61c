"""The record of a finished round: its devices, and sums and means over them."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.update import Evaluation
from slimfed.strategies.aggregation.error import ErrorEstimate
from slimfed.strategies.checks.reply_validation import RoundOutcome
from slimfed.strategies.participants import Participants
from slimfed.strategies.privacy import spent
from slimfed.strategies.protocols import DeviceRecord, RoundRecord
from slimfed.strategies.schedule import sparsity_after
from slimfed.strategies.server_state import Fleet
from slimfed.strategies.settings import StrategySettings


@dataclass(frozen=True)
class RoundMeasures:
    """The measures of a round that do not belong to one device.

    ``evaluation``: of the global model; None if it was not due. ``held_out``: see ``RoundRecord``.
    ``aggregation_error``: see ``aggregation/error.py``. ``disclosures``: number of disclosures about the device
    that was asked most often (``privacy.most_disclosed``). ``virtual_seconds``: how long the round lasted by the
    clock, without waiting for devices; ``started``: when it began by ``time.monotonic``. ``nodes``: devices given
    to each node that replied. ``phases``: seconds by phase, of the "server" and summed over the "nodes".
    """

    evaluation: Evaluation | None
    held_out: Evaluation | None
    aggregation_error: ErrorEstimate | None
    disclosures: int
    virtual_seconds: float
    started: float
    nodes: Mapping[int, int]
    phases: Mapping[str, Mapping[str, float]]


def round_record(
    settings: StrategySettings,
    fleet: Fleet,
    number: int,
    outcome: RoundOutcome,
    participants: Participants,
    measures: RoundMeasures,
) -> RoundRecord:
    """The record of round ``number``, with the ``fleet`` after it."""
    seconds, reports, error = measures.virtual_seconds, outcome.reports, measures.aggregation_error
    records = tuple(_with_energy(_booked(record, number), seconds) for record in outcome.devices)
    own = [report.evaluation.accuracy for report in reports if report.evaluation is not None]
    examples = np.array([report.examples for report in reports], dtype=np.float64)
    losses = np.array([report.loss_after for report in reports])
    removed = ADAPTERS[settings.task.adapter.name].removed(fleet.adapter, fleet.blueprint)
    return RoundRecord(
        round=number,
        devices=records,
        events=outcome.events,
        evaluation=measures.evaluation,
        device_accuracy_mean=float(np.mean(own)) if own else None,
        sparsity=sparsity_after(fleet.sparsity, removed),
        global_sparsity=sparsity_after(fleet.structure.sparsity, removed),
        removed=removed,
        virtual_seconds=participants.waited_seconds + seconds,
        wall_seconds=time.monotonic() - measures.started,
        bytes_down=sum(record.bytes_down for record in records),
        bytes_up=sum(record.bytes_up for record in records),
        train_loss=float((losses * examples).sum() / examples.sum()) if reports else None,
        joules=_energy(records),
        aggregation_error=None if error is None else error.value,
        aggregation_error_deviation=None if error is None else error.deviation,
        epsilon=spent(settings.task.privacy, measures.disclosures),
        nodes=measures.nodes,
        phases=measures.phases,
        held_out=measures.held_out,
        available=participants.available,
        waited_seconds=participants.waited_seconds,
        in_flight=None if settings.server.waits_for_all else len(fleet.in_flight),
    )


def _energy(records: Sequence[DeviceRecord]) -> float | None:
    """Joules of all devices that the clock has a completion of; None if that of one is unknown."""
    parts = [record.joules for record in records if record.completion is not None]
    known = [part for part in parts if part is not None]
    return math.fsum(known) if known and len(known) == len(parts) else None


def _with_energy(record: DeviceRecord, seconds: float) -> DeviceRecord:
    """The record of a device in a round that lasted ``seconds``, with its energy in joules."""
    if record.completion is None or record.joules is not None:
        return record
    return replace(record, joules=record.completion.joules_in(seconds))


def _booked(record: DeviceRecord, number: int) -> DeviceRecord:
    """The record of a device in round ``number``: bytes sent to it are of the round that asked it."""
    return record if record.assignment.round == number else replace(record, bytes_down=0)
