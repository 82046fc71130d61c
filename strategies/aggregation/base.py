"""The interface of an aggregation: from the updates of a round to the next global adapter."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

from slimfed.clients.adapter import Adapter
from slimfed.clients.registry import Registry
from slimfed.clients.update import Update

if TYPE_CHECKING:  # brings torch
    from slimfed.strategies.coordinates.global_vector import GlobalVector


@dataclass(frozen=True)
class Frame:
    """Inputs of a round's aggregation beside the updates: ``scaling`` in dW = scaling * b @ a, and a seed for draws.

    ``space``: the global adapter before the round as one vector, shared by the checks and sums of the round's updates;
    None: the aggregation makes its own.
    """

    scaling: float = 1.0
    seed: int = 0
    space: "GlobalVector | None" = None


PLAIN = Frame()


class Accumulation(Protocol):
    """The running aggregation of one round.

    Its memory does not grow with the number of updates, unless the method needs all factors at once. It then keeps
    references to the factors, without copies, until :meth:`result`.
    """

    def add(self, update: Update, weight: int | None = None) -> None:
        """Add one accepted update, in any order of devices. ``weight`` replaces the method's weight."""
        ...

    def merge(self, other: Self) -> None:
        """Add all updates of another accumulation of the same round; equals adding them one by one."""
        ...

    def result(self) -> Adapter:
        """The next global adapter; without updates, the adapter before."""
        ...


class Aggregator(ABC):
    """An aggregation of unequal updates to one adapter. It keeps no state between rounds.

    A new aggregation is one file here, whose class is registered with :data:`AGGREGATIONS`, or an entry point
    ``slimfed.aggregations`` of another package. The class is called once, without arguments. The attributes below
    declare its requirements and properties; they are checked before a run starts.

    The global adapter holds every coordinate of the unpruned model at the largest rank: per module a [r_max, in] and b
    [out, r_max]. A device's factors are the kept rows and columns of it, in the first ``rank`` ranks. Updates have
    passed ``update_checks.py``; an update that still does not fit raises.
    """

    needs_equal_structures: ClassVar[bool] = False
    """True if all devices must have kept the same heads and channels."""

    needs_equal_ranks: ClassVar[bool] = False
    """True if all devices must train with the same rank."""

    plain_factors_only: ClassVar[bool] = False
    """True if only LoRA's factors a and b, and the head, can be aggregated."""

    gives_direction: ClassVar[bool] = True
    """False if factors are recomputed, or a part of the change is merged into the base.

    The change of the factors is then not usable as a gradient by a server optimiser, and a late update, which is a
    change of older factors, cannot be added (``server.mode``).
    """

    changes_base: ClassVar[bool] = False
    """True if a part of the change is merged into the base's weights, which must then be held in full precision."""

    sums_updates: ClassVar[bool] = False
    """True if factors are weighted sums of the devices' factors.

    The rounding error of a message is added to the next message; only sums cancel it.
    """

    bounded_sensitivity: ClassVar[bool] = False
    """True if a coordinate is the mean over its owners, weighted only by their examples.

    One device then moves the sum by no more than the norm that its update is clipped to, on which the noise of
    differential privacy rests.
    """

    bounds_influence: ClassVar[bool] = False
    """True if a fifth of the devices cannot move the result far, whatever they send within the other checks."""

    least_updates: ClassVar[int] = 1
    """Updates of a round from which on the method does what it is for; with fewer it is a plain mean."""

    @abstractmethod
    def start(self, before: Adapter, frame: Frame = PLAIN) -> Accumulation:
        """Begin a round whose devices started from the global adapter ``before``, which is left as it is."""

    def __call__(self, before: Adapter, updates: Iterable[Update], frame: Frame = PLAIN) -> Adapter:
        """Aggregate ``updates``, with the weights of this method, in one call."""
        accumulation = self.start(before, frame)
        for update in updates:
            accumulation.add(update)
        return accumulation.result()


AGGREGATIONS = Registry[Aggregator](
    "method.aggregation", "slimfed.aggregations", Aggregator, package="slimfed.strategies.aggregation"
)
"""Aggregations by name, one object each."""
