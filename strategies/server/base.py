"""What a server optimiser is: the last adapter and a round's aggregate go in, the next adapter comes out."""

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
"""What an optimiser keeps from round to round, float32, by names of its own."""


class ServerOptimizer(ABC):
    """One step a round, made of the round's aggregate. What it keeps for the next round it returns.

    A new one is one file here, whose class registers itself with :data:`SERVER_OPTIMIZERS`, or an entry point
    ``slimfed.server_optimizers`` of another package.
    """

    moves: ClassVar[bool] = True
    """False if the aggregate is taken as it is, which goes with every adapter and every aggregation."""

    def __init__(self, spec: ServerSpec) -> None:
        self.spec = spec

    @abstractmethod
    def step(self, before: Arrays, after: Arrays, memory: Memory, number: int) -> tuple[Arrays, Memory]:
        """The next tensors and what to keep, after round ``number`` (1-based); ``memory`` is empty in the first.

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
    """``after``, with factors and head as ``optimizer`` moves them from ``before``, and what it keeps."""
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
