"""Numbers of examples that devices claim, by which updates are weighted in a mean.

In a simulation the server has divided the text itself, and a device's number is known. A real device may claim any
number, so that one could outweigh all others; a claim counts up to a multiple of the fleet's median.
"""

from collections.abc import Mapping

from slimfed.strategies.checks.outliers import Finding

CAP = 4
"""A claim counts up to so many times the median."""


def miscounted(claimed: int, known: int) -> Finding | None:
    """The fault of a device that claims another number than the ``known`` one of its part of the text."""
    if claimed == known:
        return None
    cause = f"counts {claimed} examples, its part of the text has {known}"
    return Finding("examples", cause, "check that the node runs the same slimfed version and job as the server")


def largest_weight(claims: Mapping[int, int]) -> int:
    """The largest weight in a round with these ``claims`` by device: :data:`CAP` times their median.

    Of an even number of claims the lower of the two in the middle is taken, so that of two devices the smaller one
    decides. Fewer than half of the devices cannot raise it at will.
    """
    ordered = sorted(claims.values())
    return CAP * ordered[(len(ordered) - 1) // 2] if ordered else 0
