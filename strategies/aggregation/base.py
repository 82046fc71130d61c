"""What aggregation is: the updates of a round go in one at a time, the next global adapter comes out."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Protocol

from slimfed.clients.update import Adapter, Update


class Accumulation(Protocol):
    """One round's aggregation on its way; its memory does not grow with the number of updates."""

    def add(self, update: Update, weight: int | None = None) -> None:
        """Take in one fit update; ``weight`` defaults to its examples. May be called in any order of devices."""
        ...

    def result(self) -> Adapter:
        """The next global adapter; with no update, the one before."""
        ...


class Aggregator(ABC):
    """How unequal updates become one adapter. A new way is one file and one line in the registry.

    The global adapter holds every coordinate of the unpruned model at the largest rank: per module a [r_max, in] and
    b [out, r_max]. A device's factors lie in it at the rows and columns its structure has kept, and in the first
    ``rank`` ranks. Updates have passed the checks on fitness before they come here; whatever still does not fit raises.
    """

    @abstractmethod
    def start(self, before: Adapter) -> Accumulation:
        """Begin a round whose devices started from the global adapter ``before``, which is left as it is."""

    def __call__(self, before: Adapter, updates: Iterable[Update]) -> Adapter:
        """Aggregate ``updates``, weighted by their examples, in one go."""
        accumulation = self.start(before)
        for update in updates:
            accumulation.add(update)
        return accumulation.result()
