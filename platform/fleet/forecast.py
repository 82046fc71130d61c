"""Predicted times of a round by the devices' profiles, for agents that foresee."""

from dataclasses import dataclass, field

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.adapters.targets import targeted
from slimfed.clients.models.cost import Dimensions, training_workload
from slimfed.clients.models.dimensions import measure
from slimfed.clients.node.runtime import NodeRuntime
from slimfed.clients.pruning.selection import select
from slimfed.clients.structure import Structure
from slimfed.platform.fleet.clock import VirtualClock
from slimfed.strategies.coordinates.places import device_bytes

_FIT_STEP = 0.05


@dataclass(frozen=True)
class ProfileForecast:
    """Implements ``strategies.protocols.Forecast``: the virtual clock, applied in advance.

    Half of the steps are counted at the sparsity before and half at the one after, batches as wide as the longest text
    allowed; the choice of units is left out.
    """

    clock: VirtualClock
    runtime: NodeRuntime
    adapter: Adapter
    _known: dict[float, tuple[Structure, Dimensions]] = field(default_factory=dict)
    _fits: dict[tuple[float, int], float] = field(default_factory=dict)

    def seconds(self, device: int, round: int, before: float, after: float, rank: int, local_steps: int) -> float:
        """Completion seconds with the round's jitter and power mode; infinite if memory does not suffice."""
        task = self.runtime.task
        batch, length = task.training.batch_size, task.data.max_length
        halves = [local_steps - local_steps // 2, local_steps // 2]
        method, work = ADAPTERS[task.adapter.name], []
        for sparsity, half in zip((before, after), halves, strict=True):
            size = self._size(sparsity)[1]
            load = method.load(size, rank, self.adapter)
            work.append(training_workload(size, load, half, batch, length, task.training.checkpointing))
        down, up = (
            device_bytes(self.adapter, self._size(s)[0], rank, task.messages.precision) for s in (before, after)
        )
        completion = self.clock.completion_of(device, round, work[0] + work[1], down, up)
        return float("inf") if completion.out_of_memory else completion.seconds

    def sparsity_to_fit(self, device: int, rank: int) -> float:
        """The least sparsity, in steps of 0.05, at which training fits with the longest texts; 0 if none does."""
        memory = self.clock.fleet.devices[device].memory_bytes
        key = memory, rank
        if key not in self._fits:
            shares = np.arange(0.0, 1.0, _FIT_STEP).round(2).tolist()
            self._fits[key] = next((share for share in shares if self._peak(share, rank) <= memory), 0.0)
        return self._fits[key]

    def first_scores(self) -> np.ndarray:
        """Importance of the base's units by magnitude, float32 [units]."""
        return self.runtime.scores_by_magnitude

    def _peak(self, sparsity: float, rank: int) -> float:
        task = self.runtime.task
        size = self._size(sparsity)[1]
        load = ADAPTERS[task.adapter.name].load(size, rank, self.adapter)
        batch, length = task.training.batch_size, task.data.max_length
        return training_workload(size, load, 1, batch, length, task.training.checkpointing).peak_memory_bytes

    def _size(self, sparsity: float) -> tuple[Structure, Dimensions]:
        """A structure of about this sparsity, and the sizes of the model in it."""
        key = np.round(sparsity, 2).item()
        if key not in self._known:
            blueprint = self.runtime.blueprint
            structure = select(blueprint.dense(), np.zeros(blueprint.units), key, "layer")
            targets = targeted(blueprint, self.runtime.task.adapter.targets)
            self._known[key] = structure, measure(self.runtime.base.model, blueprint, structure, targets)
        return self._known[key]
