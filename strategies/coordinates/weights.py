"""The sum of the devices' weights on each number of the global adapter."""

import numpy as np
import torch

from slimfed.strategies.coordinates.global_vector import GlobalVector, Placed


class Weights:
    """Whole weights on every number of a :class:`GlobalVector`.

    What a device owns of the factors follows from its units and its rank, so its weight is added to one line of
    [units + 1] for its rank, instead of all numbers. Entries of deltas, which have two units, are counted one by one.
    """

    def __init__(self, space: GlobalVector) -> None:
        self._space = space
        self._lines: dict[int, np.ndarray] = {}
        self._entries = torch.zeros(space.deltas.stop - space.deltas.start, dtype=torch.float64, device=space.device)

    def add(self, weight: int, keep: np.ndarray, rank: int, placed: Placed | None = None) -> None:
        """Add ``weight`` on all numbers of the units that ``keep`` has, bool [units], in the first ``rank`` ranks.

        ``placed``: the device's numbers, needed where the adapter has deltas. Raises ``ValueError`` without them.
        """
        line = self._lines.setdefault(rank, np.zeros(self._space.lines, dtype=np.int64))
        line[:-1][keep] += weight
        line[-1] += weight
        if len(self._entries):
            if placed is None:
                raise ValueError("entries of deltas are counted by the numbers of an update")
            self._entries += placed.owned[self._space.deltas].double() * weight

    def __bool__(self) -> bool:
        return bool(self._lines)

    def merge(self, other: "Weights") -> None:
        """Add other weights on the same numbers."""
        for rank, line in other._lines.items():
            self._lines[rank] = self._lines[rank] + line if rank in self._lines else line.copy()
        self._entries += other._entries

    def total(self) -> torch.Tensor:
        """Weight on every number so far, float64 [n]; exact below 2^53."""
        space = self._space
        table = np.zeros((space.ranks, space.lines))
        for rank, line in self._lines.items():
            table[:rank] += line
        total = space.spread(torch.from_numpy(table).to(space.device))
        total[space.deltas] = self._entries
        return total
