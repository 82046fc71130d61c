"""Plain federated averaging of equal adapters."""

from slimfed.clients.errors import InputError
from slimfed.clients.structure import Structure
from slimfed.clients.update import Adapter, Update
from slimfed.strategies.aggregation.base import Accumulation, Aggregator
from slimfed.strategies.aggregation.coverage import Coverage


class FedAvg(Aggregator):
    """FedIT (Zhang et al.): factors and head are means weighted by examples; all ranks and structures must be equal."""

    def start(self, before: Adapter) -> Accumulation:
        """Begin a round."""
        return _EqualSum(before)


class _EqualSum:
    """A coverage sum that refuses unequal updates: where all own the same coordinates the two means are one."""

    def __init__(self, before: Adapter) -> None:
        self._sum = Coverage().start(before)
        self._first: tuple[int, int, Structure] | None = None

    def add(self, update: Update, weight: int | None = None) -> None:
        """Take in one update. Raises ``InputError`` if its rank or structure is not that of the first one."""
        device, rank, structure = self._first or (update.device, update.rank, update.structure)
        if update.rank != rank:
            raise InputError(
                f"method.aggregation: fedavg needs equal ranks, but device {update.device} has rank {update.rank} and "
                f"device {device} rank {rank}; use 'coverage', or give bandit.ranks one value"
            )
        if update.structure != structure:
            raise InputError(
                f"method.aggregation: fedavg needs equal structures, but devices {device} and {update.device} have "
                "pruned differently; use 'coverage', or set method.target_sparsity to 0"
            )
        self._first = device, rank, structure
        self._sum.add(update, weight)

    def result(self) -> Adapter:
        """The weighted mean."""
        return self._sum.result()
