"""The comparison itself: pure functions from courses to frozen tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from slimfed.clients.errors import InputError
from slimfed.platform.comparison.course import PRICES, Cost, Course, Quality, cost_to_target, courses, under_budget
from slimfed.platform.comparison.grouping import Group, grouped
from slimfed.platform.comparison.paired import Paired, controls, regret
from slimfed.platform.comparison.robustness import Robustness, robustness
from slimfed.platform.comparison.statistic import Statistic
from slimfed.platform.comparison.target import Target
from slimfed.platform.comparison.verdict import Verdict, verdict
from slimfed.platform.format import percent
from slimfed.platform.store.reader import Reader

__all__ = ["Comparison", "GroupResult", "Target", "UnderBudget", "choose_target", "compare", "load_courses"]

SHARE_OF_BEST = 0.9
"""Default target: this share of the best quality of the runs, or of the reference run."""


@dataclass(frozen=True)
class UnderBudget:
    """Quality and sparsity of a group's newest models within a budget."""

    cost: Cost
    budget: float
    quality: Statistic
    sparsity: Statistic


@dataclass(frozen=True)
class GroupResult:
    """The results of a group. ``prices``: costs of the target, a statistic for each of ``PRICES``.

    ``final`` and ``best``: quality after the last evaluation, and the best one. ``memory``: the most bytes that a
    device needed. ``slower``: mean virtual time to the target, as a multiple of the fastest group's; None unless every
    run reached the target.
    """

    group: Group
    final: Statistic
    best: Statistic
    sparsity: Statistic
    memory: Statistic
    prices: Mapping[Cost, Statistic]
    slower: float | None
    budgets: tuple[UnderBudget, ...]

    @property
    def reached(self) -> Statistic:
        """Virtual seconds to the target of the runs that reached it."""
        return self.prices["virtual_seconds"]


@dataclass(frozen=True)
class Comparison:
    """All groups by the same measures. ``remarks``: caveats for the reader.

    ``controls`` and ``regret``: agents against their controls, and against fixed choices (``paired.py``). ``verdict``:
    None if there is nothing to compare (``verdict.py``).
    """

    quality: Quality
    target: Target | None
    groups: tuple[GroupResult, ...]
    robustness: tuple[Robustness, ...]
    controls: tuple[Paired, ...]
    regret: tuple[Paired, ...]
    remarks: tuple[str, ...]
    verdict: Verdict | None


def load_courses(reader: Reader, run_ids: Sequence[str], quality: Quality = "accuracy") -> tuple[Course, ...]:
    """The courses of the runs with these ids (or beginnings), each once. Raises ``InputError`` for unknown ones."""
    runs = {run.id: run for run in map(reader.find_run, run_ids)}
    rounds, evaluations = reader.courses(list(runs))
    return courses(runs.values(), rounds, evaluations, quality)


def choose_target(
    runs: Sequence[Course], given: float | None = None, reference: Course | None = None, sparsity: float = 0.0
) -> Target | None:
    """The quality to reach: as given, else 90% of the reference's best, else of the best of all; None without any."""
    if given is not None:
        return Target(given, "as given", sparsity)
    compared = runs if reference is None else [reference]
    best = max((course.best for course in compared if course.best is not None), default=None)
    if best is None:
        return None
    whose = "the best of these runs" if reference is None else f"run {reference.run_id}"
    origin = f"{SHARE_OF_BEST:.0%} of {percent(best)}, {whose}"
    return Target(SHARE_OF_BEST * best, origin, sparsity, assumed=reference is None)


def compare(
    runs: Sequence[Course],
    quality: Quality = "accuracy",
    target: Target | None = None,
    budgets: Mapping[Cost, float] | None = None,
) -> Comparison:
    """Compare ``runs``; runs that differ only in their seed form a group.

    Raises ``InputError`` if there are none, and if they are of different tasks, whose qualities are no one thing.
    """
    if not runs:
        raise InputError("there are no runs to compare")
    check_one_task(runs)
    groups = grouped(runs)
    wanted = target or choose_target(runs)
    results = tuple(_result(group, wanted, budgets or {}) for group in groups)
    fastest = min((r.reached.mean for r in results if r.reached.complete and r.reached.mean), default=None)
    return Comparison(
        quality,
        wanted,
        tuple(_against(result, fastest) for result in results),
        robustness(groups, wanted),
        controls(groups, wanted),
        regret(groups, wanted),
        tuple(_remarks(groups, quality)),
        verdict(groups, wanted),
    )


def check_one_task(runs: Sequence[Course]) -> None:
    """Raise ``InputError`` if the runs are of different tasks, with the runs of each."""
    tasks: dict[str, list[str]] = {}
    for course in runs:
        tasks.setdefault(str(course.job["model"]["task"]), []).append(course.run_id)
    if len(tasks) > 1:
        each = "; ".join(f"{task}: {', '.join(ids)}" for task, ids in tasks.items())
        raise InputError(
            f"the runs are of different tasks, whose qualities cannot be compared: {each}; name one task's"
        )


def _result(group: Group, target: Target | None, budgets: Mapping[Cost, float]) -> GroupResult:
    runs = group.courses
    last = [course.last for course in runs if course.last is not None]

    def price(course: Course, cost: Cost) -> float | None:
        return None if target is None else cost_to_target(course.points, cost, target.value, target.sparsity)

    return GroupResult(
        group,
        Statistic(tuple(point.quality for point in last), len(runs)),
        Statistic.over(course.best for course in runs),
        Statistic(tuple(point.sparsity for point in last), len(runs)),
        Statistic.over(None if course.last is None else course.last.memory_bytes for course in runs),
        {cost: Statistic.over(price(course, cost) for course in runs) for cost in PRICES},
        None,
        tuple(_under_budget(runs, cost, budget) for cost, budget in budgets.items()),
    )


def _under_budget(runs: Sequence[Course], cost: Cost, budget: float) -> UnderBudget:
    found = [under_budget(course.points, cost, budget) for course in runs]
    points = [point for point in found if point is not None]
    return UnderBudget(
        cost,
        budget,
        Statistic(tuple(point.quality for point in points), len(runs)),
        Statistic(tuple(point.sparsity for point in points), len(runs)),
    )


def _against(result: GroupResult, fastest: float | None) -> GroupResult:
    mean = result.reached.mean
    slower = mean / fastest if fastest and mean is not None and result.reached.complete else None
    return replace(result, slower=slower)


def _remarks(groups: Sequence[Group], quality: Quality) -> list[str]:
    every = [course for group in groups for course in group.courses]
    remarks = [
        f"run {course.run_id} is {course.status}, after round {course.last.round if course.last else 0}"
        for course in every
        if course.status != "done"
    ]
    remarks += [f"run {course.run_id} has no {quality}" for course in every if not course.points]
    if len({group.seeds for group in groups}) > 1:
        remarks.append("the groups have unlike seeds")
    return remarks
