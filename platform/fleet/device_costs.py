"""What a round costs a device by its profile: time, memory and bytes, computed in advance."""

from dataclasses import dataclass, field

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.adapters.targets import targeted
from slimfed.clients.models.cost import Dimensions, training_workload
from slimfed.clients.models.dimensions import measure
from slimfed.clients.models.loading import LoadedModel
from slimfed.clients.pruning.selection import select
from slimfed.clients.spec import TaskSpec
from slimfed.clients.structure import Blueprint, Structure
from slimfed.platform.fleet.clock import VirtualClock
from slimfed.strategies.coordinates.places import device_bytes
from slimfed.strategies.protocols import Completion

_FIT_STEP = 0.05


@dataclass(frozen=True)
class DeviceCosts:
    """The virtual clock, applied in advance to structures of a given sparsity.

    Half of the steps are counted at the sparsity before and half at the one after, batches as wide as the longest text
    allowed; the choice of units is left out. ``adapter``: the global one, of the highest rank.
    """

    clock: VirtualClock
    task: TaskSpec
    base: LoadedModel
    blueprint: Blueprint
    adapter: Adapter
    _known: dict[float, tuple[Structure, Dimensions]] = field(default_factory=dict)
    _fits: dict[tuple[float, int], float | None] = field(default_factory=dict)

    def completion(
        self, device: int, round: int, before: float, after: float, rank: int, local_steps: int
    ) -> Completion:
        """Times of a round in which a device goes from sparsity ``before`` to ``after`` in ``local_steps``.

        With the round's jitter and power mode.
        """
        task = self.task
        batch, length = task.training.batch_size, task.data.max_length
        halves = [local_steps - local_steps // 2, local_steps // 2]
        method, work = ADAPTERS[task.adapter.name], []
        for sparsity, half in zip((before, after), halves, strict=True):
            size = self._size(sparsity)[1]
            load = method.load(size, rank, self.adapter)
            work.append(training_workload(size, load, half, batch, length, task.training.checkpointing))
        down, up = (self.message_bytes(sparsity, rank) for sparsity in (before, after))
        return self.clock.completion_of(device, round, work[0] + work[1], down, up)

    def sparsity_to_fit(self, device: int, rank: int) -> float | None:
        """The least sparsity, in steps of 0.05, at which training fits with the longest texts; None if none does."""
        memory = self.clock.fleet.devices[device].memory_bytes
        key = memory, rank
        if key not in self._fits:
            shares = np.arange(0.0, 1.0, _FIT_STEP).round(2).tolist()
            self._fits[key] = next((share for share in shares if self.peak_bytes(share, rank) <= memory), None)
        return self._fits[key]

    def peak_bytes(self, sparsity: float, rank: int) -> float:
        """The most memory that training needs at a sparsity, with batches of the longest texts."""
        task = self.task
        size = self._size(sparsity)[1]
        load = ADAPTERS[task.adapter.name].load(size, rank, self.adapter)
        batch, length = task.training.batch_size, task.data.max_length
        return training_workload(size, load, 1, batch, length, task.training.checkpointing).peak_memory_bytes

    def message_bytes(self, sparsity: float, rank: int) -> int:
        """Bytes of the adapter in one message, in one direction."""
        return device_bytes(self.adapter, self._size(sparsity)[0], rank, self.task.messages.precision)

    def parameters(self, sparsity: float = 0.0) -> int:
        """Parameters of the model at a sparsity, embeddings included."""
        return self._size(sparsity)[1].parameters

    def held_bytes(self) -> tuple[int, int]:
        """Bytes of the dense base's weights as devices hold them, and as they would if none were quantised."""
        size = self._size(0.0)[1]
        return size.held_bytes, size.parameters * size.bytes_per_weight

    def _size(self, sparsity: float) -> tuple[Structure, Dimensions]:
        """A structure of about this sparsity, and the sizes of the model in it."""
        key = np.round(sparsity, 2).item()
        if key not in self._known:
            structure = select(self.blueprint.dense(), np.zeros(self.blueprint.units), key, "layer")
            targets = targeted(self.blueprint, self.task.adapter.targets)
            self._known[key] = structure, measure(self.base.model, self.blueprint, structure, targets)
        return self._known[key]
