"""The wire format: Flower records only, one message a node and round, or for 200 of its devices.

A device's tensors are one vector (``adapter_codec.py``). The receiver trusts no part of a message: sizes are checked
here, names and values by the strategy.

Down (train): ``task`` (JSON), ``layout`` (JSON), ``fleet`` arrays {adapter, structures, scores} and one list per
field of the assignments.

Up: ``update-D`` arrays {adapter, structure, scores, and measured if asked for}, ``metrics-D`` and ``layout-D`` for
every device D that finished, and ``failures`` {D: cause} for those that did not. With ``messages.precision`` other than
fp32 adapters are vectors in that precision (``quantization.py``), with ``exponents`` beside them for int8;
``memory-D``, float32, is sent both ways for a simulated device, whose memory the server keeps. ``node`` {seconds}: the
node's working time.

Query: ``host`` {device, memory_gib, cores, tags} of a real node; empty from a node that serves any device.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeGuard

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from slimfed.clients.adapter import Adapter
from slimfed.clients.errors import SlimfedError
from slimfed.clients.messages.adapter_codec import decode_adapter, encode_adapter, encode_entries
from slimfed.clients.messages.machine import Machine
from slimfed.clients.messages.numbers import REPORT
from slimfed.clients.messages.quantization import adapter_bytes
from slimfed.clients.messages.tags import MOST_TAGS, is_tag
from slimfed.clients.plain_text import clean
from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.clients.spec import Precision, TaskSpec
from slimfed.clients.structure import Blueprint, Structure, union
from slimfed.clients.update import Assignment, Evaluation, Failure, Report, Update, Workload


class MalformedMessageError(SlimfedError, ValueError):
    """A message whose records have a wrong form; the text names record and fault."""


@dataclass(frozen=True)
class Orders:
    """A node's part of a round: its devices' assignments, the adapter narrowed to them, and the fleet's scores.

    ``adapter`` has the shape of ``envelope`` (the union of the devices' structures) and of their largest rank;
    ``scores`` is float32 [units], the fleet's mean importance after the last round (zeros in the first). ``memories``:
    of devices whose updates are rounded, in the shapes of their assignments.
    """

    task: TaskSpec
    adapter: Adapter
    envelope: Structure
    scores: np.ndarray
    assignments: tuple[Assignment, ...]
    memories: Mapping[int, Adapter] = field(default_factory=dict)


_ASSIGNED = [f.name for f in fields(Assignment) if f.name != "structure"]
_METRICS = (
    "round",
    "rank",
    "loss_before",
    "loss_after",
    "importance",
    "examples",
    "seconds",
    "measured_memory_bytes",
)
_DEVICE = re.compile(r"0|[1-9][0-9]{0,8}")
PHASES = frozenset(
    ("open", "decode", "build", "probe", "batches", "prune", "steps", "importance", "read", "evaluate", "encode")
)
"""The phases of a node's work."""
_WORKLOAD = tuple(f.name for f in fields(Workload))
_EVALUATION = tuple(f.name for f in fields(Evaluation) if f.name != "samples")


def encode_orders(orders: Orders) -> RecordDict:
    """Records of one message to a node."""
    values, layout = encode_adapter(orders.adapter, orders.task.messages.precision)
    rows = np.stack([a.structure.pack() for a in orders.assignments])
    columns: dict[str, Any] = {name: [getattr(a, name) for a in orders.assignments] for name in _ASSIGNED}
    return RecordDict(
        {
            "task": ConfigRecord({"json": orders.task.model_dump_json()}),
            "layout": ConfigRecord({"json": layout}),
            "fleet": ArrayRecord(
                values | {"structures": Array(rows), "scores": Array(orders.scores)} | encode_entries(orders.adapter),
            ),
            "assignments": ConfigRecord(columns),
        }
        | _memories(orders.memories)
    )


def decode_task(content: RecordDict) -> TaskSpec:
    """The task of a message, with which the model is opened and the rest decoded."""
    return TaskSpec.model_validate_json(str(content["task"]["json"]))


def assigned_devices(content: RecordDict) -> list[int]:
    """Numbers of the devices that a message assigns work to."""
    columns: Any = content["assignments"]
    return [int(device) for device in columns["device"]]


def decode_orders(content: RecordDict, blueprint: Blueprint) -> Orders:
    """Inverse of :func:`encode_orders`. Raises :class:`MalformedMessageError`."""
    try:
        arrays: Any = content["fleet"]
        task = decode_task(content)
        adapter = decode_adapter(arrays, str(content["layout"]["json"]), task.messages.precision)
        columns: Any = content["assignments"]
        rows = arrays["structures"].numpy()
        assignments = tuple(
            Assignment(**{name: columns[name][i] for name in _ASSIGNED}, structure=Structure.unpack(blueprint, row))
            for i, row in enumerate(rows)
        )
        envelope = union(a.structure for a in assignments)
        memories = {}
        for a in assignments:
            if f"memory-{a.device}" in content:
                own = narrow(adapter, envelope, a.structure, a.rank)
                memories[a.device] = _memory(content, a.device, own)
        return Orders(task, adapter, envelope, arrays["scores"].numpy(), assignments, memories)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise MalformedMessageError(f"orders cannot be read: {error!r}") from error


def encode_results(results: Sequence[Update | Failure], precision: Precision = "fp32") -> RecordDict:
    """Records of a node's reply."""
    content = RecordDict()
    failures: dict[str, Any] = {}
    for result in results:
        if isinstance(result, Failure):
            failures[str(result.device)] = result.cause
            continue
        values, layout = encode_adapter(result.adapter, precision)
        content[f"update-{result.device}"] = ArrayRecord(
            values
            | {"structure": Array(result.report.structure.pack()), "scores": Array(result.scores)}
            | ({} if result.measured is None else {"measured": Array(result.measured)})
            | encode_entries(result.adapter),
        )
        memory = result.report.memory
        for name, record in _memories({result.device: memory} if memory else {}).items():
            content[name] = record
        content[f"layout-{result.device}"] = ConfigRecord({"json": layout})
        content[f"metrics-{result.device}"] = MetricRecord(_metrics(result))
    content["failures"] = ConfigRecord(failures)
    return content


def decode_results(
    content: RecordDict,
    blueprint: Blueprint,
    wanted: Collection[int] | None = None,
    precision: Precision = "fp32",
) -> list[Update | Failure]:
    """Inverse of :func:`encode_results`, ordered by device; an update that cannot be read becomes a failure.

    Entries of devices that are not ``wanted`` (None: all) are not read; :func:`strangers` lists them.
    """
    return sorted(read_results(content, blueprint, wanted, precision), key=lambda result: result.device)


def read_results(
    content: RecordDict,
    blueprint: Blueprint,
    wanted: Collection[int] | None = None,
    precision: Precision = "fp32",
) -> Iterator[Update | Failure]:
    """As :func:`decode_results`, one after another in the order of the records."""
    for key in content:
        if _answers_for(key, wanted):
            yield _decode_update(content, int(key.removeprefix("update-")), blueprint, precision)
    failures: Any = content.get("failures", {})
    for name, cause in failures.items():
        if _answers_for(f"update-{name}", wanted):
            yield Failure(int(name), clean(cause))


def strangers(content: RecordDict, wanted: Collection[int]) -> list[int]:
    """Devices in a reply that were not requested, ascending."""
    failures: Any = content.get("failures", {})
    named = [*content, *(f"update-{name}" for name in failures)]
    return sorted({int(key.removeprefix("update-")) for key in named if _answers_for(key, None)} - set(wanted))


def _answers_for(key: str, wanted: Collection[int] | None) -> bool:
    """True if a record's name is that of an update of a wanted device."""
    device = key.removeprefix("update-") if key.startswith("update-") else ""
    return _DEVICE.fullmatch(device) is not None and (wanted is None or int(device) in wanted)


def encode_work(content: RecordDict, seconds: float) -> None:
    """Add the node's working time in seconds to its reply."""
    content["node"] = MetricRecord({"seconds": seconds})


def decode_work(content: RecordDict) -> float:
    """Working time in seconds reported by a node; 0 if missing or invalid. It does not shorten the measured time."""
    record: Any = content.get("node", {})
    seconds = record.get("seconds") if isinstance(record, MetricRecord) else None
    return seconds if isinstance(seconds, float) and 0 < seconds < math.inf else 0.0


def encode_phases(content: RecordDict, seconds: Mapping[str, float]) -> None:
    """Add the node's seconds by phase to its reply."""
    content["phases"] = MetricRecord(dict(seconds))


def decode_phases(content: RecordDict, elapsed: float) -> dict[str, float]:
    """Seconds by phase of a node that replied after ``elapsed`` seconds; invalid ones are left out."""
    record: Any = content.get("phases", {})
    if not isinstance(record, MetricRecord):
        return {}
    return {name: s for name, s in record.items() if name in PHASES and _lasted(s, elapsed)}


def time_fault(content: RecordDict, elapsed: float) -> str | None:
    """The first time in a node's reply that cannot be, in words; None if there is none.

    ``elapsed``: seconds from the server's send to its receipt, which no part of the node's work exceeds.
    """
    node, phases = content.get("node"), content.get("phases")
    told: dict[str, Any] = {f"phases.{name}": s for name, s in phases.items()} if _metric(phases) else {}
    told |= {f"node.{name}": s for name, s in node.items()} if _metric(node) else {}
    for name, seconds in told.items():
        if name != "node.seconds" and name.removeprefix("phases.") not in PHASES:
            return f"{clean(name)[:60]} is no time that a node reports"
        if not _lasted(seconds, elapsed):
            return f"{name} is {seconds!r:.30} s, the reply came after {elapsed:.1f} s"
    return None


def _metric(record: object) -> TypeGuard[MetricRecord]:
    return isinstance(record, MetricRecord)


def _lasted(seconds: object, elapsed: float) -> TypeGuard[float]:
    """True for a time within ``elapsed`` seconds, up to a difference between two clocks."""
    return isinstance(seconds, float) and 0 <= seconds <= 1.01 * elapsed + 1.0


def encode_host(device: int | None, machine: Machine | None = None) -> RecordDict:
    """A node's reply with the device that it hosts, and what it tells of its machine."""
    told: dict[str, Any] = {} if device is None else {"device": device}
    if machine is not None:
        told |= {"memory_gib": machine.memory_gib, "cores": machine.cores, "tags": list(machine.tags)}
    return RecordDict({"host": ConfigRecord(told)})


def decode_host(content: RecordDict) -> int | None:
    """The device that a node hosts by its reply; None if it hosts none. Raises :class:`MalformedMessageError`."""
    record = content.get("host")
    device = record.get("device") if isinstance(record, ConfigRecord) else None
    if not isinstance(record, ConfigRecord) or (device is not None and (type(device) is not int or device < 0)):
        raise MalformedMessageError("a node's answer to who it hosts cannot be read")
    return device


def decode_facts(content: RecordDict) -> dict[str, float | tuple[str, ...]]:
    """What a node tells of its machine (:class:`Machine`), by name; nothing of an older version.

    Raises :class:`MalformedMessageError`.
    """
    record: Any = content.get("host")
    numbers = {name: record[name] for name in ("memory_gib", "cores") if name in record}
    tags = record.get("tags", [])
    sound = all(type(value) in (int, float) and math.isfinite(value) and value >= 0 for value in numbers.values())
    if not sound or not isinstance(tags, list) or len(tags) > MOST_TAGS or not all(map(is_tag, tags)):
        raise MalformedMessageError("what a node tells of its machine cannot be read")
    facts: dict[str, float | tuple[str, ...]] = {name: float(value) for name, value in numbers.items()}
    return facts | ({"tags": tuple(tags)} if "tags" in record else {})


def _decode_update(content: RecordDict, device: int, blueprint: Blueprint, precision: Precision) -> Update | Failure:
    try:
        arrays: Any = content[f"update-{device}"]
        metrics: Any = content[f"metrics-{device}"]
        adapter = decode_adapter(arrays, str(content[f"layout-{device}"]["json"]), precision)
        report = Report(
            device=device,
            effective_rank=adapter.effective_rank,
            structure=Structure.unpack(blueprint, arrays["structure"].numpy()),
            memory=_memory(content, device, adapter) if f"memory-{device}" in content else None,
            workload=Workload(*(_number(metrics, name, f"workload.{name}") for name in _WORKLOAD)),
            evaluation=_evaluation(metrics),
            **{name: _number(metrics, name, name) for name in _METRICS},
        )
        measured = arrays["measured"].numpy() if "measured" in arrays else None
        return Update(report, adapter, arrays["scores"].numpy(), measured)
    except Exception as error:  # whatever a hostile record makes numpy or json raise, it is that device's failure
        return Failure(device, clean(f"malformed update: {type(error).__name__}: {error}"))


def _evaluation(metrics: Any) -> Evaluation | None:
    """The evaluation of the device's own model, with at least loss and accuracy; or None."""
    there = {name: f"test_{name}" for name in _EVALUATION if f"test_{name}" in metrics}
    numbers = {name: _number(metrics, key, f"evaluation.{name}") for name, key in there.items()}
    return Evaluation(**numbers) if there else None


def _number(metrics: Any, key: str, name: str) -> Any:
    """The metric ``key``, of exactly the type that the number ``name`` has (``numbers.py``)."""
    value, wanted = metrics[key], REPORT[name].kind
    if type(value) is not wanted:
        raise TypeError(f"{key} is {value!r:.50}, expected {wanted.__name__}")
    return value


def _metrics(update: Update) -> dict[str, Any]:
    metrics = {name: getattr(update.report, name) for name in _METRICS}
    metrics |= {name: getattr(update.report.workload, name) for name in _WORKLOAD}
    if update.report.evaluation is not None:
        measured = {name: getattr(update.report.evaluation, name) for name in _EVALUATION}
        metrics |= {f"test_{name}": value for name, value in measured.items() if value is not None}
    return metrics


def _memories(memories: Mapping[int, Adapter]) -> dict[str, Any]:
    return {f"memory-{device}": ArrayRecord({"adapter": Array(m.vector)}) for device, m in memories.items()}


def _memory(content: RecordDict, device: int, adapter: Adapter) -> Adapter:
    """A device's memory, which has the shapes of ``adapter``. Raises ``ValueError`` if it does not fit."""
    arrays: Any = content[f"memory-{device}"]
    vector = arrays["adapter"].numpy()
    size = sum(tensor.size for tensor in adapter.tensors())
    if vector.dtype != np.float32 or vector.shape != (size,) or not np.isfinite(vector).all():
        raise ValueError(f"memory must be {size} finite float32, got {vector.dtype} {list(vector.shape)}")
    return adapter.with_vector(vector)


def orders_bytes(assignment: Assignment, adapter_bytes: int) -> int:
    """Bytes a device downloads for its part: the adapter in its own shape, its structure, the fleet's scores."""
    units = assignment.structure.blueprint.units
    return adapter_bytes + assignment.structure.pack().nbytes + 4 * units


def update_bytes(update: Update, precision: Precision = "fp32") -> int:
    """Bytes a device uploads: the adapter in its own shape, its structure, its scores, and what it measured."""
    arrays = (update.report.structure.pack(), update.scores, update.measured)
    return adapter_bytes(update.adapter, precision) + sum(array.nbytes for array in arrays if array is not None)
