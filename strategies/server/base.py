"""The interface of a server optimiser: from the last adapter and a round's aggregate to the next adapter."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.registry import Registry
from slimfed.strategies.server.spec import ServerSpec

Arrays = Mapping[str, np.ndarray]
Memory = dict[str, np.ndarray]
"""State of an optimiser between rounds: float32 tensors by name."""


class ServerOptimizer(ABC):
    """An optimiser that makes one step a round from the round's aggregate, and returns its state for the next round.

    A new one is one file here, whose class is registered with :data:`SERVER_OPTIMIZERS`, or an entry point
    ``slimfed.server_optimizers`` of another package.
    """

    moves: ClassVar[bool] = True
    """False if the aggregate is used unchanged, which works with every adapter and aggregation."""

    def __init__(self, spec: ServerSpec) -> None:
        self.spec = spec

    @abstractmethod
    def step(self, before: Arrays, after: Arrays, memory: Memory, number: int) -> tuple[Arrays, Memory]:
        """The next tensors and the new state, after round ``number`` (1-based); ``memory`` is empty in the first.

        ``before`` was sent, ``after`` is the aggregate: the same names and shapes.
        """


SERVER_OPTIMIZERS = Registry[type[ServerOptimizer]](
    "server.optimizer",
    "slimfed.server_optimizers",
    ServerOptimizer,
    package="slimfed.strategies.server",
    helpers=("flower",),  # importing Flower's strategies takes a second
    classes=True,
)
"""Server optimisers by name, as classes."""


def moved(
    optimizer: ServerOptimizer, before: Adapter, after: Adapter, memory: Memory, number: int
) -> tuple[Adapter, Memory]:
    """``after``, with factors and head moved by ``optimizer`` from ``before``, and the optimiser's state."""
    named = _named(after)
    stepped, kept = optimizer.step(_named(before), named, memory, number)
    new = {name: np.asarray(stepped[name], dtype=np.float32) for name in named}
    factors = {
        module: Factors(**{part: new[f"{part}/{module}"] for part in f.parts()}) for module, f in after.factors.items()
    }
    return replace(after, factors=factors, head={name: new[f"head/{name}"] for name in after.head}), kept


def under(prefix: str, arrays: Arrays) -> Memory:
    """Tensors as float32 under names that begin with ``prefix``."""
    return {f"{prefix}/{name}": np.asarray(value, dtype=np.float32) for name, value in arrays.items()}


def out_of(prefix: str, memory: Arrays) -> dict[str, np.ndarray]:
    """Inverse of :func:`under`."""
    start = f"{prefix}/"
    return {name.removeprefix(start): value for name, value in memory.items() if name.startswith(start)}


def _named(adapter: Adapter) -> dict[str, np.ndarray]:
    parts = {f"{part}/{name}": t for name, f in adapter.factors.items() for part, t in f.parts().items()}
    return parts | {f"head/{name}": value for name, value in adapter.head.items()}
