"""What training is given: what all devices of a node share, and what is one device's own."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
import torch

from slimfed.clients.adapter import Adapter
from slimfed.clients.models.loading import LoadedModel
from slimfed.clients.spec import TaskSpec
from slimfed.clients.stopwatch import Stopwatch
from slimfed.clients.structure import Blueprint
from slimfed.clients.update import Assignment

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class DeviceContext:
    """The same for all devices: the frozen base, its blueprint, the run's task. ``watch`` learns where time goes."""

    base: LoadedModel
    blueprint: Blueprint
    task: TaskSpec
    watch: Stopwatch = field(default_factory=Stopwatch)

    @property
    def dtype(self) -> torch.dtype:
        """What products are computed in: that of the task, or of the base where the task says fp32."""
        return torch.bfloat16 if self.task.dtype == "bf16" else self.base.model.dtype


@dataclass(frozen=True)
class DeviceData:
    """A device's own data: training batches for a round, fixed batches to measure on, how much there is."""

    batches: Callable[[], Iterator[Batch]]
    probe: tuple[Batch, ...]
    examples: int


@dataclass(frozen=True)
class DeviceWork:
    """One device's part of a round.

    ``adapter`` is as it was sent, in the device's shape (structure and rank of ``assignment``); ``scores`` are the
    fleet's, float32 [units].
    """

    assignment: Assignment
    adapter: Adapter
    scores: np.ndarray
    data: DeviceData


@dataclass(frozen=True)
class CohortWork(Sequence[DeviceWork]):
    """The parts of several devices, in order; ``scores`` are the fleet's, float32 [units], the same for all.

    Each device's adapter is cut out of what was sent only when it is asked for, if ``adapters`` is a ``Broadcast``.
    """

    assignments: Sequence[Assignment]
    adapters: Sequence[Adapter]
    scores: np.ndarray
    data: Sequence[DeviceData]

    def __len__(self) -> int:
        return len(self.assignments)

    @overload
    def __getitem__(self, place: int) -> DeviceWork: ...

    @overload
    def __getitem__(self, place: slice) -> "CohortWork": ...

    def __getitem__(self, place: int | slice) -> "DeviceWork | CohortWork":
        if isinstance(place, slice):
            return CohortWork(self.assignments[place], self.adapters[place], self.scores, self.data[place])
        return DeviceWork(self.assignments[place], self.adapters[place], self.scores, self.data[place])
