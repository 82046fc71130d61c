"""A weighted sum that does not depend on the order of its terms, not even in the last bit."""

import torch

from slimfed.strategies.coordinates.global_vector import blocks

# Every term is split into a multiple of _COARSE and a multiple of _FINE. Float64 adds multiples of a power of two
# without rounding while the sum stays below 2^53 of them, and sums without rounding may be taken in any order.
_COARSE = 2.0**-12
_FINE = 2.0**-46
LARGEST_WEIGHT = 2**29 - 1
# Adding this and taking it away again rounds to such a multiple: the sum's last bit is worth as much.
_TO_COARSE, _TO_FINE = (1.5 * 2.0**52 * unit for unit in (_COARSE, _FINE))


class ExactSum:
    """Sums float32 vectors times whole weights into float64 [size]; memory is that of two such vectors.

    Each term is rounded once, to a multiple of 2^-46. Sums below 2^41 of up to a million terms are exact beyond that.
    """

    def __init__(self, size: int, device: torch.device | str = "cpu") -> None:
        self._parts = torch.zeros(2, size, dtype=torch.float64, device=device)  # coarse, fine

    def add(self, values: torch.Tensor, weight: int, start: int = 0) -> None:
        """Add ``weight * values`` from the position ``start`` on. Raises ``ValueError`` if they do not fit."""
        if values.dtype != torch.float32 or not 0 < weight <= LARGEST_WEIGHT:
            raise ValueError(f"need float32 terms and a whole weight in [1, 2^29), got {values.dtype} and {weight}")
        if values.dim() != 1 or start + len(values) > self._parts.shape[1]:
            raise ValueError(
                f"a term of shape {list(values.shape)} does not fit {self._parts.shape[1] - start} numbers"
            )
        for block in blocks(0, len(values), self._parts.device):
            fine = values[block].double()
            fine *= weight  # 24 + 29 bits: exact
            coarse = fine + _TO_COARSE
            coarse -= _TO_COARSE
            fine -= coarse
            fine += _TO_FINE
            fine -= _TO_FINE
            there = slice(start + block.start, start + block.stop)
            self._parts[0, there] += coarse
            self._parts[1, there] += fine

    def merge(self, other: "ExactSum") -> None:
        """Add the terms of another sum of the same size."""
        self._parts += other._parts

    def value(self) -> torch.Tensor:
        """The sum so far, float64 [size]."""
        return self._parts[0] + self._parts[1]
