"""Updates in flight: those of devices that are still at work when their round closes. They are in the checkpoint."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.structure import Blueprint, Structure
from slimfed.clients.update import Assignment, Evaluation, Report, Workload
from slimfed.strategies.bandits import Arm
from slimfed.strategies.late_updates.staleness import own_part
from slimfed.strategies.protocols import Completion, DeviceRecord

_UNMEASURED: dict[str, Any] = {"seconds": math.nan, "measured_memory_bytes": 0}


@dataclass(frozen=True)
class InFlight:
    """An update that was checked, and arrives when the virtual clock shows ``arrival`` seconds.

    ``change``: what the device has changed in the adapter that it was sent, in the shape of its structure and rank.
    ``scores``: float32 [units]. ``bytes_down`` and ``bytes_up``: of its messages. ``arm``: that of its agent.
    """

    assignment: Assignment
    arm: Arm
    report: Report
    change: Adapter
    scores: np.ndarray
    completion: Completion
    arrival: float
    bytes_down: int
    bytes_up: int

    @property
    def device(self) -> int:
        """Number of the device."""
        return self.assignment.device


def in_flight_of(arm: Arm, record: DeviceRecord, change: Adapter, scores: np.ndarray, opened: float) -> InFlight:
    """The update of a device that was asked at the virtual second ``opened``. Raises ``ValueError`` if it has none.

    What was measured on the machine of its node is left out, so that a repeated round leaves the same checkpoint.
    """
    if record.report is None or record.completion is None:
        raise ValueError(f"device {record.assignment.device} has no update that could be in flight")
    arrival = opened + record.completion.seconds
    return InFlight(
        record.assignment,
        arm,
        replace(record.report, **_UNMEASURED),
        change,
        scores,
        record.completion,
        arrival,
        record.bytes_down,
        record.bytes_up,
    )


Packed = tuple[dict[str, np.ndarray], list[dict[str, Any]]]
"""Tensors, and a JSON-able rest with one item for each update."""


def pack(updates: Sequence[InFlight]) -> Packed:
    """The updates as parts of a checkpoint; inverse of :func:`unpack`."""
    tensors: dict[str, np.ndarray] = {}
    rest = []
    for each in updates:
        parts = {
            "assigned": each.assignment.structure.pack(),
            "structure": each.report.structure.pack(),
            "change": each.change.vector,
            "scores": each.scores,
        }
        if each.report.memory is not None:
            parts["memory"] = each.report.memory.vector
        tensors |= {f"in-flight/{each.device}/{name}": tensor for name, tensor in parts.items()}
        rest.append(
            {
                "assignment": _plain(each.assignment, "structure"),
                "arm": asdict(each.arm),
                "report": _plain(each.report, "structure", "memory", "workload", "evaluation", *_UNMEASURED),
                "workload": asdict(each.report.workload),
                "evaluation": None if each.report.evaluation is None else asdict(each.report.evaluation),
                "completion": asdict(each.completion),
                "arrival": each.arrival,
                "bytes_down": each.bytes_down,
                "bytes_up": each.bytes_up,
            }
        )
    return tensors, rest


def unpack(
    blueprint: Blueprint, adapter: Adapter, tensors: Mapping[str, np.ndarray], rest: Sequence[Mapping[str, Any]]
) -> tuple[InFlight, ...]:
    """The updates that gave these parts; ``adapter``: the global one, whose shapes theirs are parts of.

    Raises ``KeyError``, ``TypeError`` or ``ValueError`` if the parts do not fit.
    """
    return tuple(_unpacked(blueprint, adapter, tensors, each) for each in rest)


def _unpacked(
    blueprint: Blueprint, adapter: Adapter, tensors: Mapping[str, np.ndarray], each: Mapping[str, Any]
) -> InFlight:
    device = each["assignment"]["device"]

    def own(name: str) -> np.ndarray:
        return tensors[f"in-flight/{device}/{name}"]

    evaluation = each["evaluation"]
    report = Report(
        **each["report"],
        **_UNMEASURED,
        structure=Structure.unpack(blueprint, own("structure")),
        workload=Workload(**each["workload"]),
        evaluation=None if evaluation is None else Evaluation(**evaluation),
    )
    shapes = own_part(adapter, report)
    if f"in-flight/{device}/memory" in tensors:
        report = replace(report, memory=_shaped(shapes, own("memory"), device))
    return InFlight(
        Assignment(**each["assignment"], structure=Structure.unpack(blueprint, own("assigned"))),
        Arm(**each["arm"]),
        report,
        _shaped(shapes, own("change"), device),
        own("scores"),
        Completion(**each["completion"]),
        each["arrival"],
        each["bytes_down"],
        each["bytes_up"],
    )


def _shaped(shapes: Adapter, vector: np.ndarray, device: int) -> Adapter:
    wanted = shapes.vector.shape
    if vector.shape != wanted or vector.dtype != np.float32:
        raise ValueError(f"in-flight/{device} has {vector.dtype} {list(vector.shape)}, expected float32 {list(wanted)}")
    return shapes.with_vector(vector)


def _plain(record: Assignment | Report, *without: str) -> dict[str, Any]:
    """The fields of a record by name, as JSON values."""
    return {each.name: getattr(record, each.name) for each in fields(record) if each.name not in without}
