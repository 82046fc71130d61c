"""The target of a comparison."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A quality to reach, its origin in words, and the least sparsity of a model that reaches it."""

    value: float
    origin: str
    sparsity: float = 0.0
