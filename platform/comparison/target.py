"""What runs are asked to reach."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A quality to reach, in words where it comes from, and the sparsity that a model must have to count."""

    value: float
    origin: str
    sparsity: float = 0.0
