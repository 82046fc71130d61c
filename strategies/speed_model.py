"""A device's speed, estimated from its past rounds, and the predicted time of its next round. No profile is read."""

from dataclasses import dataclass

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

    ``dense_seconds``: computing time of a round of the unpruned model without adapter, if time is proportional to the
    number of weights.
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
    """Compute and bytes that an arm costs any device, from the sizes of the global ``adapter`` alone."""

    adapter: Adapter
    precision: Precision = "fp32"

    def load(self, before: float, after: float, rank: int) -> float:
        """Compute of a round from sparsity ``before`` to ``after``, in rounds of the dense model without adapter."""
        shapes = [(f.b.shape[0], f.a.shape[1]) for f in self.adapter.factors.values()]
        trained = rank * sum(rows + columns for rows, columns in shapes)
        frozen = max(1, sum(rows * columns for rows, columns in shapes))  # sparse deltas have no factors
        return (1.0 - (before + after) / 2.0) * (1.0 + _TRAINED_TO_FROZEN * trained / frozen)

    def pace(self, completion: Completion, load: float, bytes_down: int, bytes_up: int) -> Pace:
        """The pace of a device with this ``completion`` of a round of this ``load`` and these bytes."""
        return Pace(
            completion.download_seconds / max(bytes_down, 1),
            completion.compute_seconds / load,
            completion.upload_seconds / max(bytes_up, 1),
        )

    def times(self, pace: Pace, structure: Structure, arms: list[Arm]) -> dict[Arm, float]:
        """Completion seconds by arm for a device of this ``pace`` and ``structure``; pruned parts are not uploaded."""
        before = structure.sparsity
        sent = {
            rank: device_bytes(self.adapter, structure, rank, self.precision) for rank in {arm.rank for arm in arms}
        }
        return {
            arm: pace.seconds(
                self.load(before, before + (1.0 - before) * arm.pruning_step, arm.rank),
                sent[arm.rank],
                sent[arm.rank] * (1.0 - arm.pruning_step),
            )
            for arm in arms
        }
