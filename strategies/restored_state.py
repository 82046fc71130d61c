"""Whether a fleet that was read from a checkpoint is one that its job could have left."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from slimfed.clients.messages.numbers import first_fault
from slimfed.strategies.server_state import Fleet


def misfit(fleet: Fleet, new: Fleet, round: int) -> str | None:
    """What in ``fleet``, restored after ``round``, does not fit the job; None if all fits.

    ``new``: the job's fleet before its first round.
    """
    return next(_misfits(fleet, new, round), None)


def _misfits(fleet: Fleet, new: Fleet, round: int) -> Iterator[str]:
    if type(fleet.round) is not int or fleet.round != round:
        yield f"round is {fleet.round!r:.50}, the checkpoint is that of round {round}"
    if len(fleet.devices) != len(new.devices):
        yield f"structures are those of {len(fleet.devices)} devices, the job has {len(new.devices)}"
    for name, value in (("virtual_clock", fleet.virtual_clock), ("score_weight", fleet.score_weight)):
        if not _positive(value):
            yield f"{name} is {value!r:.50}, expected a finite number that is not negative"
    norm = fleet.clipping_norm
    if norm is not None and not (_positive(norm) and norm > 0):
        yield f"clipping_norm is {norm!r:.50}, expected a finite number above 0"
    yield from _odd("scores", fleet.score_sum, new.score_sum.shape)
    if (fleet.score_sum < 0).any():
        yield "scores has negative values"
    yield from _odd_adapter(fleet, new)
    for name, tensor in fleet.server_memory.items():
        if not np.isfinite(tensor).all():
            yield f"server/{name} has NaN or infinite values"
    most = max(len(factors.a) for factors in new.adapter.factors.values()) if new.adapter.factors else None
    for number, device in enumerate(fleet.devices):
        if device.rank is not None and (device.rank < 1 or (most is not None and device.rank > most)):
            yield f"ranks: device {number} has rank {device.rank}, expected 1 to {most}"
        pace = () if device.pace is None else (device.pace.down, device.pace.dense_seconds, device.pace.up)
        if not all(_positive(value) for value in pace):
            yield f"paces: device {number} has {pace}, expected finite numbers that are not negative"
        if device.memory is not None and not np.isfinite(device.memory.adapter.vector).all():
            yield f"memory/{number} has NaN or infinite values"
    asked = fleet.asked
    if asked is not None and (
        asked.dtype != np.int64 or asked.shape != (len(new.devices),) or (asked < 0).any() or (asked > round).any()
    ):
        yield f"asked is {asked.dtype} {list(asked.shape)}, expected int64 [{len(new.devices)}] from 0 to {round}"
    yield from _odd_flights(fleet, new, round)
    found, size = fleet.measured, 1 + len(new.blueprint.blocks)
    if found is not None and not (
        found.dtype == np.float64 and found.shape == (size,) and np.isfinite(found).all() and found[0] > 0
    ):
        yield f"measured is {found.dtype} {list(found.shape)}, expected float64 [{size}], finite, with a weight above 0"
    if _selection(fleet) != _selection(new):
        yield f"selection is {_selection(fleet)}, the job's is {_selection(new)}"
    if type(fleet.agent) is not type(new.agent) or fleet.agent.spec.name != new.agent.spec.name:
        yield f"bandits are of {fleet.agent.spec.name!r}, the job names {new.agent.spec.name!r}"


def _odd_flights(fleet: Fleet, new: Fleet, round: int) -> Iterator[str]:
    """What is wrong with the updates in flight; their shapes were compared when they were read."""
    devices = [each.device for each in fleet.in_flight]
    if devices != sorted(set(devices)) or not set(devices) <= set(range(len(new.devices))):
        yield f"in_flight has devices {devices!r:.50}, expected some of 0 to {len(new.devices) - 1}, ascending"
        return
    for each in fleet.in_flight:
        name, asked = f"in-flight/{each.device}", each.assignment.round
        if type(asked) is not int or not 1 <= asked <= round or each.report.round != asked:
            yield f"{name} was asked in round {asked!r:.50}, expected 1 to {round}"
        if each.report.device != each.device:
            yield f"{name} has the report of device {each.report.device!r:.50}"
        fault = first_fault(replace(each.report, seconds=0.0))  # which is not kept
        if fault is not None:
            yield f"{name}: {' '.join(fault)}"
        if not (_positive(each.bytes_down) and _positive(each.bytes_up)):
            yield f"{name} has sizes of messages that are no numbers"
        if not _positive(each.arrival) or not _positive(each.completion.seconds):
            yield f"{name} arrives at {each.arrival!r:.50}, expected a finite time that is not negative"
        yield from _odd(f"{name}/scores", each.scores, new.score_sum.shape)
        for part, adapter in (("change", each.change), ("memory", each.report.memory)):
            if adapter is not None and not np.isfinite(adapter.vector).all():
                yield f"{name}/{part} has NaN or infinite values"


def _selection(fleet: Fleet) -> tuple[object, int] | None:
    """What the devices of a round are chosen by, and its seed; None if all are asked."""
    return None if fleet.selector is None else (fleet.selector.spec, fleet.selector.seed)


def _odd_adapter(fleet: Fleet, new: Fleet) -> Iterator[str]:
    """What is not as in the job's first adapter: names and shapes of factors and head; other parts only finite."""
    for what, found, wanted in (
        ("modules", fleet.adapter.factors, new.adapter.factors),
        ("head", fleet.adapter.head, new.adapter.head),
    ):
        if found.keys() != wanted.keys():
            yield f"{what} are not those of the model: {sorted(found.keys() ^ wanted.keys())[:3]}"
            return
    for name, factors in fleet.adapter.factors.items():
        known = new.adapter.factors[name]
        yield from _odd(f"a/{name}", factors.a, known.a.shape)
        yield from _odd(f"b/{name}", factors.b, known.b.shape)
    for name, tensor in fleet.adapter.head.items():
        yield from _odd(f"head/{name}", tensor, new.adapter.head[name].shape)
    if not all(np.isfinite(tensor).all() for tensor in fleet.adapter.tensors()):
        yield "the adapter has NaN or infinite values"
    if fleet.memory is not None and not np.isfinite(fleet.memory.vector).all():
        yield "memory has NaN or infinite values"


def _odd(name: str, tensor: np.ndarray, shape: tuple[int, ...]) -> Iterator[str]:
    if tensor.dtype != np.float32 or tensor.shape != shape:
        yield f"{name} is {tensor.dtype} {list(tensor.shape)}, expected float32 {list(shape)}"
    elif not np.isfinite(tensor).all():
        yield f"{name} has NaN or infinite values"


def _positive(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= 0  # type: ignore[arg-type, operator]
