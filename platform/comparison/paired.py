"""Paired ratios: agents against their controls, and against the best fixed choice of each seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from slimfed.platform.comparison.course import cost_to_target
from slimfed.platform.comparison.grouping import Group
from slimfed.platform.comparison.target import Target

_CONTROL = "bandit.control"
# Fields by which fixed choices differ from each other and from an agent. All others must be equal.
_CHOICE = ("bandit.", "training.local_steps", "method.name")


@dataclass(frozen=True)
class Paired:
    """Virtual time to the target of ``group`` over that of ``other``, seed by seed.

    ``ratios``: by seed, of the seeds that both have and in which both reached the target. ``missed``: seeds that both
    have, in which one of them did not. ``others``: for each seed of ``ratios`` which group the other is.
    """

    group: str
    other: str
    ratios: Mapping[int, float]
    missed: tuple[int, ...]
    others: Mapping[int, str]

    @property
    def median(self) -> float | None:
        """The median of the ratios; None if there are none."""
        return median(self.ratios.values()) if self.ratios else None


def controls(groups: Sequence[Group], target: Target | None) -> tuple[Paired, ...]:
    """Every group with a ``bandit.control`` against the group of the same job without: above 1 if learning pays."""
    found = []
    for group in groups:
        control = group.fields.get(_CONTROL, "none")
        twin = next((other for other in groups if control != "none" and _same_but_control(group, other)), None)
        if twin is not None:
            found.append(_paired(group, group.name, twin.name, [twin], target))
    return tuple(found)


def regret(groups: Sequence[Group], target: Target | None) -> tuple[Paired, ...]:
    """Every group of an agent against the quickest of the fixed choices of the same job, chosen afterwards by seed.

    Fixed choices are groups with ``bandit.name = "fixed"`` that differ from the agent's in ``[bandit]``,
    ``training.local_steps`` and the preset's name alone. Below 1 if the agent adapts better than any fixed choice.
    """
    found = []
    for group in groups:
        fixed = [other for other in groups if _is_fixed(other) and _same_job(group, other)]
        if fixed and not _is_fixed(group):
            found.append(_paired(group, group.name, "best fixed choice", fixed, target))
    return tuple(found)


def _paired(group: Group, name: str, other: str, candidates: Sequence[Group], target: Target | None) -> Paired:
    """``group`` against the quickest of the ``candidates`` in each seed."""
    own = _times(group, target)
    ratios: dict[int, float] = {}
    whose: dict[int, str] = {}
    missed = []
    there = {each.name: _times(each, target) for each in candidates}
    for seed, time in sorted(own.items()):
        if not any(seed in times for times in there.values()):
            continue
        reached = {whom: found for whom, times in there.items() if (found := times.get(seed))}
        if time is None or not reached:
            missed.append(seed)
            continue
        whose[seed] = min(reached, key=lambda each: reached[each])
        ratios[seed] = time / reached[whose[seed]]
    return Paired(name, other, ratios, tuple(missed), whose)


def _times(group: Group, target: Target | None) -> dict[int, float | None]:
    """Virtual seconds to the target by seed; None where it was not reached."""
    if target is None:
        return {}
    return {
        course.seed: cost_to_target(course.points, "virtual_seconds", target.value, target.sparsity)
        for course in group.courses
    }


def _same_but_control(group: Group, other: Group) -> bool:
    def rest(of: Group) -> dict[str, object]:
        return {path: value for path, value in of.fields.items() if path != _CONTROL}

    return other.fields.get(_CONTROL, "none") == "none" and rest(group) == rest(other)


def _is_fixed(group: Group) -> bool:
    return group.fields.get("bandit.name") == "fixed"


def _same_job(group: Group, other: Group) -> bool:
    def rest(of: Group) -> dict[str, object]:
        return {path: value for path, value in of.fields.items() if not path.startswith(_CHOICE)}

    return rest(group) == rest(other)
