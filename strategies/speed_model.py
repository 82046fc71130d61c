"""How fast a device was seen to be, and so how long its next round will take. No profile is read."""

from dataclasses import dataclass

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.spec import Precision
from slimfed.clients.structure import Structure
from slimfed.strategies.aggregation.coordinates import device_bytes
from slimfed.strategies.bandits import Arm
from slimfed.strategies.protocols import Completion

# What the past counts when a round comes in: averages jitter, and notices a new power mode within a few rounds.
_MEMORY = 0.5
# A trained weight costs three products (forward, gradients of input and weight) where a frozen one costs two.
_TRAINED_TO_FROZEN = 1.5


@dataclass(frozen=True)
class Pace:
    """Seconds a byte down, a dense round and a byte up have taken; smoothed over the rounds that the device answered.

    ``dense_seconds``: what computing its round would take unpruned and without an adapter, if time goes with weights.
    """

    down: float
    dense_seconds: float
    up: float

    def then(self, newer: "Pace") -> "Pace":
        """This pace after one more observation."""
        old, new = (np.array([pace.down, pace.dense_seconds, pace.up]) for pace in (self, newer))
        return Pace(*(_MEMORY * old + (1 - _MEMORY) * new).tolist())

    def seconds(self, load: float, bytes_down: float, bytes_up: float) -> float:
        """Completion time of a round of this ``load`` (see :meth:`Toll.load`)."""
        return self.down * bytes_down + self.dense_seconds * load + self.up * bytes_up


@dataclass(frozen=True)
class Toll:
    """What arms ask of any device, relative to each other: read off the global ``adapter`` alone."""

    adapter: Adapter
    precision: Precision = "fp32"

    def load(self, before: float, after: float, rank: int) -> float:
        """Computing in a round from sparsity ``before`` to ``after``, in rounds of the dense model without adapter."""
        shapes = [(f.b.shape[0], f.a.shape[1]) for f in self.adapter.factors.values()]
        trained = rank * sum(rows + columns for rows, columns in shapes)
        frozen = max(1, sum(rows * columns for rows, columns in shapes))  # sparse deltas have no factors
        return (1.0 - (before + after) / 2.0) * (1.0 + _TRAINED_TO_FROZEN * trained / frozen)

    def seen(self, completion: Completion, load: float, bytes_down: int, bytes_up: int) -> Pace:
        """The pace that one observation shows."""
        return Pace(
            completion.download_seconds / max(bytes_down, 1),
            completion.compute_seconds / load,
            completion.upload_seconds / max(bytes_up, 1),
        )

    def times(self, pace: Pace, structure: Structure, arms: list[Arm]) -> dict[Arm, float]:
        """Seconds that each of ``arms`` will take a device of this ``structure``; what is pruned is not sent up."""
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
