"""A device's speed, estimated from its past rounds, and the predicted time of its next round. No profile is read."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.spec import Precision
from slimfed.clients.structure import Structure
from slimfed.strategies.bandits import Arm
from slimfed.strategies.coordinates.places import device_bytes
from slimfed.strategies.protocols import Completion

# Weight of earlier rounds: averages jitter, and follows a new power mode within a few rounds.
_MEMORY = 0.5
# A trained weight costs three products (forward, gradients of input and weight) where a frozen one costs two.
_TRAINED_TO_FROZEN = 1.5


@dataclass(frozen=True)
class Pace:
    """Seconds for a byte down, a dense round and a byte up, smoothed over the rounds that the device answered.

    ``dense_seconds``: computing time of a round of the unpruned model without adapter with ``training.local_steps``, if
    time is proportional to the number of weights and steps.
    """

    down: float
    dense_seconds: float
    up: float

    def smoothed(self, newer: "Pace") -> "Pace":
        """The moving average of this pace and a ``newer`` observation."""
        old, new = (np.array([pace.down, pace.dense_seconds, pace.up]) for pace in (self, newer))
        return Pace(*(_MEMORY * old + (1 - _MEMORY) * new).tolist())

    def seconds(self, load: float, bytes_down: float, bytes_up: float) -> float:
        """Completion seconds of a round of this ``load`` (see :meth:`RoundCost.load`) and these bytes."""
        return self.down * bytes_down + self.dense_seconds * load + self.up * bytes_up


@dataclass(frozen=True)
class RoundCost:
    """Compute and bytes that an arm costs any device, from the sizes of the global ``adapter`` alone.

    ``local_steps``: those of the job's rounds. ``probe_steps``: steps' worth of computing that a round takes beside its
    steps, for the losses that an agent learns from.
    """

    adapter: Adapter
    precision: Precision = "fp32"
    local_steps: int = 1
    probe_steps: float = 0.0
    _sent: dict[bytes, dict[int, int]] = field(default_factory=dict, repr=False)

    def load(self, before: float, after: float, rank: int, local_steps: int | None = None) -> float:
        """Compute of a round from sparsity ``before`` to ``after``, in rounds of the dense model without adapter."""
        share = ((local_steps or self.local_steps) + self.probe_steps) / self.local_steps
        return share * (1.0 - (before + after) / 2.0) * (1.0 + _TRAINED_TO_FROZEN * rank * self._trained_to_frozen)

    @cached_property
    def _trained_to_frozen(self) -> float:
        """Trained weights of each rank over frozen ones; 0 for sparse deltas, which have no factors."""
        shapes = [(f.b.shape[0], f.a.shape[1]) for f in self.adapter.factors.values()]
        return sum(rows + columns for rows, columns in shapes) / max(1, sum(rows * columns for rows, columns in shapes))

    def pace(self, completion: Completion, load: float, bytes_down: int, bytes_up: int) -> Pace:
        """The pace of a device with this ``completion`` of a round of this ``load`` and these bytes."""
        return Pace(
            completion.download_seconds / max(bytes_down, 1),
            completion.compute_seconds / load,
            completion.upload_seconds / max(bytes_up, 1),
        )

    def times(self, pace: Pace, structure: Structure, arms: Sequence[Arm]) -> np.ndarray:
        """Completion seconds of ``arms``, float64 [arms], on a device of this ``pace`` and ``structure``.

        Pruned parts are not uploaded.
        """
        before = structure.sparsity
        sent = self._bytes_by_rank(structure, {arm.rank for arm in arms})
        loads = {
            arm: self.load(before, before + (1.0 - before) * arm.pruning_step, arm.rank, arm.local_steps)
            for arm in arms
        }
        return np.array(
            [pace.seconds(loads[arm], sent[arm.rank], sent[arm.rank] * (1.0 - arm.pruning_step)) for arm in arms]
        )

    def _bytes_by_rank(self, structure: Structure, ranks: Set[int]) -> dict[int, int]:
        """Bytes of the adapter in this shape. Those of the last structure are kept, which devices often share."""
        key = structure.keep.tobytes()
        if key not in self._sent:
            self._sent.clear()
        known = self._sent.setdefault(key, {})
        for rank in ranks - known.keys():
            known[rank] = device_bytes(self.adapter, structure, rank, self.precision)
        structure.forget()
        return known
