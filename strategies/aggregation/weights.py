"""The sum of the devices' weights on each coordinate of a tensor."""

from typing import Any

import numpy as np

from slimfed.strategies.aggregation.exact import chosen_axis

Line = tuple[int, tuple[int | None, ...]]


class Weights:
    """Whole weights per coordinate, int64 [shape].

    A device owns some rows (or columns) of a tensor and a number of ranks, so its weight is described by entries of one
    axis and by the ends on the other axes. It is added to one line instead of the whole tensor; there are as many lines
    as ranks.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._everywhere = 0
        self._lines: dict[Line, np.ndarray] = {}

    def add(self, weight: int, where: Any) -> None:
        """Add ``weight`` at ``where``: all, or an index whose slices start at 0, with at most one axis of entries."""
        if where is ...:
            self._everywhere += weight
            return
        index = where if isinstance(where, tuple) else (where,)
        axis = chosen_axis(index) or 0
        key = axis, tuple(None if i == axis else part.stop for i, part in enumerate(index))
        if key not in self._lines:
            self._lines[key] = np.zeros(self._shape[axis], dtype=np.int64)
        self._lines[key][index[axis]] += weight

    def merge(self, other: "Weights") -> None:
        """Add other weights on a tensor of the same shape."""
        self._everywhere += other._everywhere
        for key, line in other._lines.items():
            self._lines[key] = self._lines[key] + line if key in self._lines else line.copy()

    def total(self) -> np.ndarray:
        """Weight per coordinate so far."""
        total = np.full(self._shape, self._everywhere, dtype=np.int64)
        for (axis, stops), line in self._lines.items():
            along = [-1 if i == axis else 1 for i in range(len(self._shape))]
            total[tuple(map(slice, stops))] += line.reshape(along)
        return total
