"""Plain federated averaging of equal adapters."""

from collections.abc import Callable

from slimfed.clients.adapter import Adapter
from slimfed.clients.errors import InputError
from slimfed.clients.structure import Structure
from slimfed.clients.update import Update
from slimfed.strategies.aggregation.base import AGGREGATIONS, PLAIN, Accumulation, Aggregator, Frame
from slimfed.strategies.aggregation.means import Means


@AGGREGATIONS.register("fedavg")
class FedAvg(Aggregator):
    """The mean of factors, weighted by examples; all ranks and structures must be equal.

    FedIT (Zhang et al., arXiv 2305.05644). The head is averaged as the factors are.
    """

    needs_equal_structures = True
    needs_equal_ranks = True
    sums_updates = True
    bounded_sensitivity = True

    def start(self, before: Adapter, frame: Frame = PLAIN) -> Accumulation:
        """An empty accumulation for a round that started from ``before``."""
        return EqualMeans(before, frame, "fedavg")


class EqualMeans:
    """Means that refuse unequal updates. With equal coordinates, all averages of factors are the same."""

    def __init__(
        self,
        before: Adapter,
        frame: Frame,
        name: str,
        weigh: Callable[[Update], int] = lambda update: update.report.examples,
    ) -> None:
        self._means = Means(before, frame, weigh=weigh)
        self._name = name
        self._first: tuple[int, int, Structure] | None = None

    def add(self, update: Update, weight: int | None = None) -> None:
        """Add one update. Raises ``InputError`` if its rank or structure is not that of the first one."""
        self._compare(update.device, update.report.rank, update.report.structure)
        self._means.add(update, weight)

    def merge(self, other: "EqualMeans") -> None:
        """Add other means. Raises ``InputError`` if their rank or structure is not that of the first update."""
        if other._first is not None:
            self._compare(*other._first)
        self._means.merge(other._means)

    def _compare(self, device: int, rank: int, structure: Structure) -> None:
        first, own_rank, own_structure = self._first or (device, rank, structure)
        if rank != own_rank:
            raise InputError(
                f"method.aggregation: {self._name} needs equal ranks, but device {device} has rank "
                f"{rank} and device {first} rank {own_rank}; give bandit.ranks one value, or use another "
                "aggregation"
            )
        if structure != own_structure:
            raise InputError(
                f"method.aggregation: {self._name} needs equal structures, but devices {first} and {device} "
                "have pruned differently; set pruning.structure to 'shared', or use another aggregation"
            )
        self._first = first, own_rank, own_structure

    def result(self) -> Adapter:
        """The weighted mean."""
        return self._means.result()
