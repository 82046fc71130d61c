"""Inputs of training: those that all devices of a node share, and those of one device."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
import torch

from slimfed.clients.adapter import Adapter
from slimfed.clients.models.loading import LoadedModel
from slimfed.clients.spec import TaskSpec
from slimfed.clients.structure import Blueprint
from slimfed.clients.telemetry.meter import Meter
from slimfed.clients.telemetry.stopwatch import Stopwatch
from slimfed.clients.training.teacher import Teacher
from slimfed.clients.update import Assignment

Batch = dict[str, torch.Tensor]


def counted_shape(task: TaskSpec, batch: Batch) -> tuple[int, int]:
    """Rows and tokens that the work of a ``batch`` is counted for.

    Under local privacy those of the largest batch that the job allows, since lengths tell of a device's text.
    """
    if task.privacy.kind == "local":
        return task.training.batch_size, task.data.max_length
    rows, length = batch["input_ids"].shape
    return rows, length


@dataclass(frozen=True)
class DeviceContext:
    """Shared by all devices: the frozen base, its blueprint, the run's task.

    ``watch`` counts time by phase, ``meter`` work that is done. ``teacher``: what devices are held to, if anything.
    """

    base: LoadedModel
    blueprint: Blueprint
    task: TaskSpec
    watch: Stopwatch = field(default_factory=Stopwatch)
    meter: Meter = field(default_factory=Meter)
    teacher: Teacher | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Type of the products: that of the task, or for fp32 that of the base."""
        return torch.bfloat16 if self.task.dtype == "bf16" else self.base.model.dtype


@dataclass(frozen=True)
class DeviceData:
    """A device's data: training batches of a round, fixed batches for losses, number of examples."""

    batches: Callable[[], Iterator[Batch]]
    probe: tuple[Batch, ...]
    examples: int


@dataclass(frozen=True)
class DeviceWork:
    """One device's part of a round.

    ``adapter`` is the one that was sent, in the device's shape (structure and rank of ``assignment``); ``scores`` are
    the fleet's, float32 [units].
    """

    assignment: Assignment
    adapter: Adapter
    scores: np.ndarray
    data: DeviceData


@dataclass(frozen=True)
class CohortWork(Sequence[DeviceWork]):
    """The parts of several devices, in order; ``scores`` are the fleet's, float32 [units], the same for all.

    If ``adapters`` is a ``Broadcast``, each device's adapter is sliced on demand.
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
