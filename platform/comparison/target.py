"""The target of a comparison."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A quality to reach, its origin in words, and the least sparsity of a model that reaches it.

    ``assumed``: nobody gave it; it follows from the compared runs.
    """

    value: float
    origin: str
    sparsity: float = 0.0
    assumed: bool = False
