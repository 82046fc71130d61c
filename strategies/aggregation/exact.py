"""A weighted sum that does not depend on the order of its terms, not even in the last bit."""

from typing import Any

import numpy as np

# Every term is split into a multiple of _COARSE and a multiple of _FINE. Float64 adds multiples of a power of two
# without rounding while the sum stays below 2^53 of them, and sums without rounding may be taken in any order.
_COARSE = 2.0**-12
_FINE = 2.0**-46
_LARGEST_WEIGHT = 2**29
# Adding this and taking it away again rounds to such a multiple: the sum's last bit is worth as much.
_TO_COARSE, _TO_FINE = (1.5 * 2.0**52 * unit for unit in (_COARSE, _FINE))


def chosen_axis(where: Any) -> int | None:
    """The axis of which the index ``where`` chooses entries, if it is one and there are slices for the others."""
    if type(where) is not tuple:
        return None
    axes = [axis for axis, index in enumerate(where) if isinstance(index, np.ndarray)]
    return axes[0] if len(axes) == 1 else None


class ExactSum:
    """Sums float32 terms times whole weights into float64 [shape]; memory is that of two such arrays.

    Each term is rounded once, to a multiple of 2^-46. Sums below 2^41 of up to a million terms are exact beyond that.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._parts = np.zeros((2, *shape))  # coarse, fine

    def add(self, values: np.ndarray, weight: int, where: Any = ...) -> None:
        """Add ``weight * values`` at the index ``where``. Raises ``ValueError`` if ``values`` do not have its shape."""
        if values.dtype != np.float32 or not 0 < weight < _LARGEST_WEIGHT:
            raise ValueError(f"need float32 terms and a whole weight in [1, 2^29), got {values.dtype} and {weight}")
        axis = chosen_axis(where)
        entries = None if axis is None else where[axis]
        # Adding to slices is several times as fast as to chosen rows or columns, and zeros change no sum.
        slices = where if axis is None else (*where[:axis], slice(None), *where[axis + 1 :])
        place = (slice(None), *slices) if isinstance(slices, tuple) else (slice(None), slices)
        target = self._parts[place]
        fits = list(target.shape[1:])
        if axis is not None:
            fits[axis] = len(where[axis])
        if list(values.shape) != fits:  # numpy would broadcast a rank-1 factor over all ranks
            raise ValueError(f"a term of shape {list(values.shape)} does not fit {fits}")
        if axis is not None:
            there = (*(slice(None) for _ in range(axis)), entries)
            values, chosen = np.zeros(target.shape[1:], dtype=np.float32), values
            values[there] = chosen
        target += _split(values, weight)
        if not np.may_share_memory(target, self._parts):  # entries of a single axis: a copy
            self._parts[place] = target

    def merge(self, other: "ExactSum") -> None:
        """Add the terms of another sum of the same shape."""
        self._parts += other._parts

    def value(self) -> np.ndarray:
        """The sum so far, float64 [shape]."""
        return self._parts[0] + self._parts[1]


def _split(values: np.ndarray, weight: int) -> np.ndarray:
    """``weight * values`` as [coarse, fine], float64."""
    parts = np.empty((2, *values.shape))
    coarse, fine = parts
    np.multiply(values, float(weight), out=fine, dtype=np.float64)  # 24 + 29 bits: exact
    np.add(fine, _TO_COARSE, out=coarse)
    coarse -= _TO_COARSE
    fine -= coarse
    fine += _TO_FINE
    fine -= _TO_FINE
    return parts
