"""What aggregation is: the updates of a round go in one at a time, the next global adapter comes out."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

from slimfed.clients.adapter import Adapter
from slimfed.clients.registry import Registry
from slimfed.clients.update import Update


@dataclass(frozen=True)
class Frame:
    """What a round's aggregation must know beside the updates: dW = ``scaling`` * b @ a, and a seed for its draws."""

    scaling: float = 1.0
    seed: int = 0


PLAIN = Frame()


class Accumulation(Protocol):
    """One round's aggregation on its way.

    Its memory does not grow with the number of updates, except where the mathematics needs all of their factors at
    once: then it refers to them, without copies, until the result is asked for.
    """

    def add(self, update: Update, weight: int | None = None) -> None:
        """Take in one accepted update, in any order of devices; ``weight`` replaces the one it would get."""
        ...

    def merge(self, other: Self) -> None:
        """Take in all updates of another accumulation of the same round; which one took them in makes no difference."""
        ...

    def result(self) -> Adapter:
        """The next global adapter; with no update, the one before."""
        ...


class Aggregator(ABC):
    """How unequal updates become one adapter. It keeps nothing between rounds.

    A new way is one file here, whose class registers itself with :data:`AGGREGATIONS`, or an entry point
    ``slimfed.aggregations`` of another package. The class is called once, without arguments. What it needs, and what
    others may expect of it, it says by the attributes below, which are checked before a run starts.

    The global adapter holds every coordinate of the unpruned model at the largest rank: per module a [r_max, in] and
    b [out, r_max]. A device's factors lie in it at the rows and columns its structure has kept, and in the first
    ``rank`` ranks. Updates have passed ``update_checks.py`` before they come here; whatever still does not fit raises.
    """

    needs_equal_structures: ClassVar[bool] = False
    """True if all devices must have kept the same heads and channels."""

    needs_equal_ranks: ClassVar[bool] = False
    """True if all devices must train with the same rank."""

    plain_factors_only: ClassVar[bool] = False
    """True if nothing but LoRA's factors a and b, and the head, can be aggregated."""

    gives_direction: ClassVar[bool] = True
    """False if factors are written anew, or a part of the change goes into the base.

    The change of the factors is then no gradient for a server optimiser.
    """

    sums_updates: ClassVar[bool] = False
    """True if factors are weighted sums of the devices' factors.

    What rounding takes away of a message in one round is added to the next, which only a sum makes good.
    """

    bounded_sensitivity: ClassVar[bool] = False
    """True if a coordinate is the mean over its owners, weighted by nothing but their examples.

    One device then moves the sum by no more than the norm that its update is clipped to, on which the noise of
    differential privacy rests.
    """

    @abstractmethod
    def start(self, before: Adapter, frame: Frame = PLAIN) -> Accumulation:
        """Begin a round whose devices started from the global adapter ``before``, which is left as it is."""

    def __call__(self, before: Adapter, updates: Iterable[Update], frame: Frame = PLAIN) -> Adapter:
        """Aggregate ``updates``, with the weights that this way gives them, in one go."""
        accumulation = self.start(before, frame)
        for update in updates:
            accumulation.add(update)
        return accumulation.result()


AGGREGATIONS = Registry[Aggregator](
    "method.aggregation", "slimfed.aggregations", Aggregator, package="slimfed.strategies.aggregation"
)
"""Ways to aggregate by name, one object each."""
