"""Which updates of a round are too large for its fleet: outliers by distance moved and by size of scores."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from slimfed.clients.update import Assignment, Update
from slimfed.strategies.coordinates.global_vector import GlobalVector, blocks

Fault = Literal[
    "unknown-device",
    "late",
    "repeated",
    "rank",
    "structure",
    "names",
    "shape",
    "not-finite",
    "range",
    "examples",
    "norm",
    "scores",
]

# A device is compared with the fleet only if at least so many others can be.
_FEWEST_PEERS = 5
# An honest distance is within this factor of the median, or within _MADS robust standard deviations of its logarithm.
_FACTOR = 10.0
# Importance is quadratic in a gradient, so a distance ten times as large may give scores a hundred times as large.
_SCORES_FACTOR = 100.0
_MADS = 6.0
# Scores up to this many times the fleet's mean are accepted, whatever the median.
_QUIET = 30.0
# First grade while no sizes are known.
_LEAST_REACH, _LEAST_KNOWN = 1e-12, 1e-20
_MOST_GRADES = 63
_MAD_TO_DEVIATION = 1.4826

ALL_GRADES = (_MOST_GRADES, _MOST_GRADES)
"""The highest grades of distance and of scores, which no update exceeds."""

DIVERGED = "lower training.learning_rate or training.max_grad_norm, or use dtype fp32; check the device's data"
"""Remedy for updates outside the range of honest training."""


@dataclass(frozen=True)
class Finding:
    """What is wrong with an update: its kind, the cause, and what to do."""

    kind: Fault
    cause: str
    remedy: str


@dataclass(frozen=True)
class Sizes:
    """Sizes of an update that are compared with the fleet's, both root mean squares.

    ``moved``: its distance from what the device was sent (:func:`distance`). ``scored``: of its scores.
    """

    moved: float
    scored: float


@dataclass(frozen=True)
class Grades:
    """The sizes of updates in steps, so that updates of one grade can be summed before the fleet's median is known.

    Grade 0 are all that move up to ``reach``, or score up to ``known``; every further grade is a factor 2, or 8. An
    update is refused if its grade is above that of the bound: what is refused is always above the bound, and above
    ``reach`` or ``known``.
    """

    reach: float
    known: float

    @staticmethod
    def of(assignments: Iterable[Assignment], scores: np.ndarray | None = None) -> "Grades":
        """``reach``: AdamW moves an entry by about its learning rate a step, and hardly further.

        ``known``: 30 times the root mean square of ``scores``, the fleet's mean importance, float32 [units].
        """
        reach = max((a.local_steps * max(a.learning_rate, a.learning_rate_end) for a in assignments), default=0.0)
        size = 0.0 if scores is None else root_mean_square(scores)
        return Grades(max(reach, _LEAST_REACH), max(_QUIET * size, _LEAST_KNOWN))

    def moved(self, size: float) -> int:
        """The grade of a distance."""
        return _grade(size, self.reach, 2.0)

    def scored(self, size: float) -> int:
        """The grade of a size of scores."""
        return _grade(size, self.known, 8.0)

    def both(self, sizes: Sizes) -> tuple[int, int]:
        """The grades of an update."""
        return self.moved(sizes.moved), self.scored(sizes.scored)


def _grade(size: float, first: float, factor: float) -> int:
    if size <= first:
        return 0
    if not math.isfinite(size):
        return _MOST_GRADES
    return min(_MOST_GRADES, math.ceil((math.log(size) - math.log(first)) / math.log(factor)))


def find_outliers(sizes: Mapping[int, Sizes], grades: Grades) -> tuple[dict[int, Finding], tuple[int, int]]:
    """Findings against devices whose updates are too large for this fleet, and the highest grades that are accepted.

    ``sizes``: of all updates that passed the other checks, by device. An update's distance must not be far above the
    median (:func:`largest_distance`), nor its scores: a few large scores would decide the fleet's pruning.
    """
    found: dict[int, Finding] = {}
    far = largest_distance([each.moved for _, each in sorted(sizes.items())])
    highest = grades.moved(far)
    for device, each in sizes.items():
        if grades.moved(each.moved) > highest:
            cause = f"moved {each.moved:.3g} from what was sent, the fleet at most {far:.3g} (root mean square)"
            found[device] = Finding("norm", cause, DIVERGED)
    scored = {device: each.scored for device, each in sorted(sizes.items()) if device not in found}
    loud = largest_distance(list(scored.values()), _SCORES_FACTOR)
    loudest = grades.scored(loud)
    for device, size in scored.items():
        if grades.scored(size) > loudest:
            cause = f"has importance scores of size {size:.3g}, the fleet at most {loud:.3g} (root mean square)"
            found[device] = Finding("scores", cause, DIVERGED)
    return found, (highest, loudest)


def root_mean_square(values: np.ndarray) -> float:
    """Root mean square of all entries, computed in float64; 0 of an empty array."""
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))) if values.size else 0.0


def distance(update: Update, space: GlobalVector) -> float:
    """Root mean square difference between an update and the part of ``space`` that the device was sent.

    The mean makes devices of unequal rank and structure comparable: an AdamW step moves every entry by about as much.
    Proposals of undecided deltas are left out, since they are sizes of changes, not values.
    """
    placed, squares = space.place(update), 0.0
    for block in blocks(0, len(space), space.device):
        difference = placed.values[block] - space.values[block]
        difference *= placed.owned[block]
        squares += float(torch.linalg.vector_norm(difference, dtype=torch.float64)) ** 2
    return math.sqrt(squares / max(placed.count, 1))


def largest_distance(distances: Sequence[float], factor: float = _FACTOR) -> float:
    """The largest accepted distance, in a round whose updates have these ``distances``.

    ``factor`` times the median, or e^(6 * 1.4826 * MAD) times, with MAD the median absolute deviation of their logs, if
    the fleet is that diverse. Fewer than half of the devices cannot move it at will. Infinite (every distance is
    accepted) with fewer than 5 peers, or when most devices did not move at all.
    """
    values = np.asarray(distances, dtype=np.float64)
    if values.size <= _FEWEST_PEERS:
        return math.inf
    median = float(np.median(values))
    if median == 0.0:
        return math.inf
    logs = np.log(np.maximum(values / median, 1e-300))
    deviation = _MAD_TO_DEVIATION * float(np.median(np.abs(logs)))
    return median * max(factor, math.exp(min(_MADS * deviation, 700.0)))
