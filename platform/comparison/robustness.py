"""Robustness: runs under dropouts, stragglers or slow links, compared with undisturbed ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slimfed.platform.comparison.course import Course, cost_to_target
from slimfed.platform.comparison.grouping import Group, short_paths, shown
from slimfed.platform.comparison.statistic import Statistic
from slimfed.platform.comparison.target import Target


@dataclass(frozen=True)
class Robustness:
    """A disturbed group against the undisturbed one of the same job.

    ``change``: final quality minus the undisturbed run's; ``delay``: virtual time to the target as a multiple of the
    undisturbed run's. Both are taken seed by seed, over the seeds that both groups have.
    """

    undisturbed: str
    disturbance: str
    quality: Statistic
    undisturbed_quality: Statistic
    change: Statistic
    delay: Statistic


def robustness(groups: Sequence[Group], target: Target | None) -> tuple[Robustness, ...]:
    """One entry for each group whose job is another group's plus a disturbance."""
    found = []
    for group in groups:
        calm = next((other for other in groups if other is not group and _calm_twin(other, group)), None)
        if calm is not None:
            found.append(_compare(calm, group, target))
    return tuple(found)


def calm(disturbance: Mapping[str, Any]) -> bool:
    """True if nothing is disturbed: no dropouts, no stragglers, full bandwidth."""
    return (
        disturbance.get("fleet.dropout", 0.0) == 0.0
        and disturbance.get("disturbance.stragglers", 0.0) == 0.0
        and disturbance.get("disturbance.bandwidth_factor", 1.0) == 1.0
    )


def _calm_twin(other: Group, group: Group) -> bool:
    return calm(other.disturbance) and not calm(group.disturbance) and other.undisturbed == group.undisturbed


def _compare(undisturbed: Group, group: Group, target: Target | None) -> Robustness:
    before = {course.seed: course for course in undisturbed.courses}
    news = _news(undisturbed, group)
    short = short_paths(list(news))
    pairs = [(before[course.seed], course) for course in group.courses if course.seed in before]
    return Robustness(
        undisturbed.calm_name,
        ", ".join(f"{short[path]}={shown(value)}" for path, value in news.items()),
        Statistic.over(_final(course) for course in group.courses),
        Statistic.over(_final(course) for course in undisturbed.courses),
        Statistic.over(_change(one, other) for one, other in pairs),
        Statistic.over(_delay(one, other, target) for one, other in pairs),
    )


def _news(undisturbed: Group, group: Group) -> dict[str, Any]:
    """The disturbance's fields that differ from the undisturbed job."""
    calm_fields = undisturbed.disturbance
    return {path: value for path, value in group.disturbance.items() if calm_fields.get(path) != value}


def _final(course: Course) -> float | None:
    return None if course.last is None else course.last.quality


def _change(before: Course, after: Course) -> float | None:
    first, second = _final(before), _final(after)
    return None if first is None or second is None else second - first


def _delay(before: Course, after: Course, target: Target | None) -> float | None:
    if target is None:
        return None
    first, second = (
        cost_to_target(course.points, "virtual_seconds", target.value, target.sparsity) for course in (before, after)
    )
    return second / first if first and second is not None else None
