"""The rounding errors that a real device keeps between rounds, in Flower's context.

A simulated device keeps no state; its rounding errors are in the messages and on the server
(``messages/adapter_codec.py``).
"""

from dataclasses import replace
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.messages.quantization import kept
from slimfed.clients.messages.records import Orders
from slimfed.clients.structure import Structure
from slimfed.clients.update import Assignment, Update

_NAME = "memory"


def recall(state: RecordDict, orders: Orders) -> Orders:
    """``orders`` with this device's memory; in a repeated round, with the memory of the first attempt."""
    if f"{_NAME}-round" not in state:
        return orders
    (assignment,) = orders.assignments
    about: Any = state[f"{_NAME}-round"]
    if about["round"] == assignment.round:
        memory = _read(state, "before")
    else:
        memory = _fitted(_read(state, "after"), state, assignment)
    return orders if memory is None else replace(orders, memories={assignment.device: memory})


def remember(state: RecordDict, orders: Orders, update: Update) -> Update:
    """Store the memory of ``update``, and return the update without it."""
    _write(state, "before", orders.memories.get(update.device))
    _write(state, "after", update.report.memory)
    state[f"{_NAME}-round"] = ConfigRecord({"round": update.report.round})
    state[f"{_NAME}-structure"] = ArrayRecord({"structure": Array(update.report.structure.pack())})
    return update.with_report(memory=None)


def _fitted(memory: Adapter | None, state: RecordDict, assignment: Assignment) -> Adapter | None:
    """``memory`` in the shape of the assignment; None if the device has more units, as after a new start."""
    arrays: Any = state[f"{_NAME}-structure"]
    had = Structure.unpack(assignment.structure.blueprint, arrays["structure"].numpy())
    if memory is None or not assignment.structure.within(had):
        return None
    return kept(memory, had, assignment.structure, assignment.rank)


def _write(state: RecordDict, when: str, memory: Adapter | None) -> None:
    named: dict[str, np.ndarray] = {}
    if memory is not None:
        named = {f"{part}/{name}": t for name, f in memory.factors.items() for part, t in f.parts().items()}
        named |= {f"head/{name}": tensor for name, tensor in memory.head.items()}
    state[f"{_NAME}-{when}"] = ArrayRecord({name: Array(tensor) for name, tensor in named.items()})


def _read(state: RecordDict, when: str) -> Adapter | None:
    record: Any = state[f"{_NAME}-{when}"]
    tensors = {name: array.numpy() for name, array in record.items()}
    if not tensors:
        return None
    names = [name.removeprefix("a/") for name in tensors if name.startswith("a/")]
    factors = {name: Factors(tensors[f"a/{name}"], tensors[f"b/{name}"]) for name in names}
    return Adapter(factors, {n.removeprefix("head/"): t for n, t in tensors.items() if n.startswith("head/")})
