"""The verdict of a comparison: which group leads, by how much, and whether that is more than noise."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from slimfed.platform.comparison.course import Course, Quality, cost_to_target
from slimfed.platform.comparison.grouping import Group
from slimfed.platform.comparison.target import Target
from slimfed.platform.format import percent, plural, seconds

FEWEST_SEEDS = 5
"""Common seeds that a verdict on noise needs: with fewer, equal groups would often have differences of one sign."""

_RESAMPLES = 10_000
_LEVEL = 0.95
_ROUNDING = 1e-9
# Sparsities that differ by more than this are named.
_ABOUT_EQUAL = 0.01

Measure = Literal["quality", "time"]


@dataclass(frozen=True)
class Verdict:
    """The best group against the second best.

    ``measure``: "quality", after the last evaluation, or "time", virtual seconds to a target that somebody gave.
    ``lead``: mean over the common ``seeds`` of the leader's quality minus the other's, in [-1, 1]; or how many times
    sooner the leader reaches the target (geometric mean). ``interval``: of the lead, in the same unit, by a paired
    bootstrap over the seeds (95%, percentiles); None for fewer than :data:`FEWEST_SEEDS` common seeds. ``missed``:
    seeds in which the other did not reach the target. ``seed_seconds``: wall seconds of another seed of ``groups``
    groups.
    """

    leader: Group
    other: Group
    measure: Measure
    lead: float | None
    seeds: tuple[int, ...]
    interval: tuple[float, float] | None
    missed: tuple[int, ...]
    seed_seconds: float
    groups: int

    @property
    def clear(self) -> bool | None:
        """True if the lead is more than noise; None if that cannot be told."""
        if self.interval is None:
            return None
        level = 0.0 if self.measure == "quality" else 1.0
        return self.interval[0] > level + _ROUNDING


def verdict(groups: Sequence[Group], target: Target | None) -> Verdict | None:
    """The verdict on ``groups``; None with fewer than two that have a figure.

    Groups are ranked by their mean figure over the seeds that all have (over all seeds, if there are none): of the time
    to the target if somebody gave one, among groups of which as many runs reached it, else of the final quality.
    """
    timed = target is not None and not target.assumed
    figures = _in_common([_figures(group, target if timed else None) for group in groups], groups)
    ranked = sorted(
        (pair for pair in zip(groups, figures, strict=True) if pair[1]),
        key=lambda pair: _rank(pair[0], pair[1], timed=timed),
    )
    if len(ranked) < 2 and not (timed and ranked and len(groups) > 1):
        return None
    leader, best = ranked[0]
    other, second = ranked[1] if len(ranked) > 1 else (next(group for group in groups if group is not leader), {})
    seeds = tuple(sorted(best.keys() & second.keys()))
    missed = tuple(sorted(set(other.seeds) - second.keys())) if timed else ()
    leads = [_lead(best[seed], second[seed], timed=timed) for seed in seeds]
    lead = math.fsum(leads) / len(leads) if leads else None
    interval = _interval(leads) if len(leads) >= FEWEST_SEEDS else None
    measure: Measure = "quality"
    if timed:
        measure = "time"
        lead = None if lead is None else math.exp(lead)
        interval = None if interval is None else (math.exp(interval[0]), math.exp(interval[1]))
    price = math.fsum(map(_seed_seconds, groups))
    return Verdict(leader, other, measure, lead, seeds, interval, missed, price, len(groups))


def in_words(
    found: Verdict, quality: Quality, target: Target | None, name: Callable[[Group], str] = lambda group: group.name
) -> str:
    """The verdict in sentences. ``name``: what a group is called."""
    leader, other = name(found.leader), name(found.other)
    cost = f"Another seed of {'both' if found.groups == 2 else f'all {found.groups}'} takes about "
    cost += f"{seconds(found.seed_seconds)} on this computer."
    return f"{_leads(found, quality, target, leader, other)}{_sparsities(found)}; {_noise(found)}. {cost}"


def _leads(found: Verdict, quality: Quality, target: Target | None, leader: str, other: str) -> str:
    called = quality.replace("_", " ")
    if found.measure == "quality":
        if found.lead is None:
            return f"{leader} has the best mean {called}, before {other}"
        mean = _mean(found.leader)
        return f"{leader} leads with {percent(mean)} {called}, {100 * found.lead:.1f} points over {other}"
    wanted = "the target" if target is None else f"{percent(target.value)} {called}"
    if found.lead is None:
        return f"{leader} reaches {wanted}, {other} does not"
    missed = f" (which misses it in {plural(len(found.missed), 'seed')})" if found.missed else ""
    return f"{leader} reaches {wanted} first, {found.lead:.2f} times sooner than {other}{missed}"


def _noise(found: Verdict) -> str:
    count = len(found.seeds)
    if count == 0:
        return "no seed is common to them, so nothing is known of noise"
    over = plural(count, "common seed")
    if found.interval is None:
        return f"{over} cannot tell that from noise, {FEWEST_SEEDS} are needed"
    low, high = found.interval
    if found.measure == "quality":
        between = f"{100 * low:+.1f} to {100 * high:+.1f} points"
    else:
        between = f"{low:.2f} to {high:.2f} times"
    return f"over {over} that is {'' if found.clear else 'no '}more than noise (95% interval {between})"


def _sparsities(found: Verdict) -> str:
    """The sparsities at which the figures stand, if they differ: less pruned models are better for that alone."""
    one, other = (_sparsity(group) for group in (found.leader, found.other))
    if found.measure == "time" or one is None or other is None or abs(one - other) <= _ABOUT_EQUAL:
        return ""
    return f" (at {percent(one)} sparsity against {percent(other)})"


def _figures(group: Group, target: Target | None) -> Mapping[int, float]:
    """By seed: the final quality, or virtual seconds to ``target``; seeds without it are left out."""
    found: dict[int, float] = {}
    for course in group.courses:
        if target is None:
            value = None if course.last is None else course.last.quality
        else:
            value = cost_to_target(course.points, "virtual_seconds", target.value, target.sparsity)
        if value is not None:
            found[course.seed] = value
    return found


def _in_common(figures: Sequence[Mapping[int, float]], groups: Sequence[Group]) -> list[Mapping[int, float]]:
    """The figures of the seeds that every group has runs of; all figures if there is no such seed."""
    common = set.intersection(*(set(group.seeds) for group in groups))
    if not common:
        return list(figures)
    return [{seed: value for seed, value in each.items() if seed in common} for each in figures]


def _rank(group: Group, figures: Mapping[int, float], *, timed: bool) -> tuple[float, float]:
    """Smaller is better: fewer runs that missed the target, then the shorter time; or the higher quality."""
    mean = math.fsum(figures.values()) / len(figures)
    return (1 - len(figures) / len(set(group.seeds)), mean) if timed else (0.0, -mean)


def _lead(best: float, second: float, *, timed: bool) -> float:
    """Of one seed: points of quality, or the logarithm of how many times sooner."""
    if not timed:
        return best - second
    return math.log(max(second, 1e-9) / max(best, 1e-9))


def _interval(leads: Sequence[float]) -> tuple[float, float]:
    """Percentile interval of the mean over resampled seeds; equal leads give equal intervals."""
    import numpy as np  # imported here, as the rest of a comparison does not need it

    values = np.asarray(leads)
    drawn = np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def _mean(group: Group) -> float | None:
    values = list(_figures(group, None).values())
    return math.fsum(values) / len(values) if values else None


def _sparsity(group: Group) -> float | None:
    values = [course.last.sparsity for course in group.courses if course.last is not None]
    return math.fsum(values) / len(values) if values else None


def _seed_seconds(group: Group) -> float:
    """Mean wall seconds of the rounds of a group's runs."""
    walls = [_wall(course) for course in group.courses]
    return math.fsum(walls) / len(walls)


def _wall(course: Course) -> float:
    return course.last.wall_seconds if course.last is not None else 0.0
