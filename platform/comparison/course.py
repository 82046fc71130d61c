"""The course of a run: quality and cumulative cost after each evaluated round."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Quality = Literal["accuracy", "device_accuracy_mean", "macro_f1", "exact_match", "rouge_l", "bleu"]
Cost = Literal["virtual_seconds", "wall_seconds", "bytes", "joules", "memory_bytes"]

QUALITIES: tuple[Quality, ...] = ("accuracy", "device_accuracy_mean", "macro_f1", "exact_match", "rouge_l", "bleu")
"""Qualities of a comparison: in [0, 1], larger is better."""

PRICES: tuple[Cost, ...] = ("virtual_seconds", "wall_seconds", "bytes", "joules")
"""Costs of a target."""

BUDGETS: tuple[Cost, ...] = ("virtual_seconds", "bytes", "memory_bytes")
"""Costs that can have a budget."""


# Tolerance of a sparsity, as structures consist of whole heads and channels.
_ROUNDING = 0.01


@dataclass(frozen=True)
class Point:
    """A run after an evaluated round. Costs are those of all rounds up to here; ``bytes`` are sent both ways.

    ``joules`` is None if one round's energy is not known. ``memory_bytes`` is the most that a device has needed so far,
    None if not counted.
    """

    round: int
    quality: float
    sparsity: float
    virtual_seconds: float
    wall_seconds: float
    bytes: int
    joules: float | None
    memory_bytes: int | None

    def cost(self, name: Cost) -> float | None:
        """One of the costs."""
        value: float | None = getattr(self, name)
        return value


@dataclass(frozen=True)
class Course:
    """The points of one run, oldest first. Its ``job`` is the one in the store, as JSON values."""

    run_id: str
    status: str
    seed: int
    job: Mapping[str, Any]
    points: tuple[Point, ...]

    @property
    def last(self) -> Point | None:
        """The newest evaluation."""
        return self.points[-1] if self.points else None

    @property
    def best(self) -> float | None:
        """The best quality of all evaluations after a round."""
        return max((point.quality for point in self.points if point.round > 0), default=None)


def courses(
    runs: Iterable[Any], rounds: Sequence[Any], evaluations: Sequence[Any], quality: Quality = "accuracy"
) -> tuple[Course, ...]:
    """One course for each of ``runs`` (rows of ``Reader.find_run``), in their order.

    ``rounds`` and ``evaluations`` are those of ``Reader.courses``. A round without the wanted quality has no point.
    """
    ran, measured = _by_run(rounds), _by_run(evaluations)
    return tuple(
        Course(
            run.id,
            run.status,
            run.seed,
            run.job,
            tuple(_points(ran.get(run.id, []), measured.get(run.id, []), quality)),
        )
        for run in runs
    )


def cost_to_target(points: Sequence[Point], cost: Cost, target: float, sparsity: float = 0.0) -> float | None:
    """Cost until the quality was first at least ``target``; None if it never was, or the cost is unknown.

    The cost is interpolated linearly between the evaluation before and the one that reached the target. A target that
    the first evaluation reaches costs what that evaluation cost. So a higher target never costs less. Evaluations of a
    model below ``sparsity`` are left out.
    """
    slim = [point for point in points if point.sparsity >= sparsity - _ROUNDING]
    for before, point in itertools.pairwise((None, *slim)):
        if point is not None and point.quality >= target:
            now, then = point.cost(cost), None if before is None else before.cost(cost)
            if before is None or then is None or now is None or cost == "memory_bytes":
                return now
            return then + (now - then) * (target - before.quality) / (point.quality - before.quality)
    return None


def under_budget(points: Sequence[Point], cost: Cost, budget: float) -> Point | None:
    """The newest evaluation within ``budget``; None if the first costs more.

    Not the best one, which could be selected on the test split only.
    """
    within = [point for point in points if (spent := point.cost(cost)) is not None and spent <= budget]
    return within[-1] if within else None


def _points(rounds: Sequence[Any], evaluations: Sequence[Any], quality: Quality) -> Iterator[Point]:
    measured = {row.round: row for row in evaluations}
    if 0 in measured and (value := getattr(measured[0], quality, None)) is not None:
        yield Point(0, value, measured[0].sparsity, 0.0, 0.0, 0, 0.0, None)
    virtual = wall = 0.0
    sent, joules, memory = 0, 0.0, 0
    energy_known = True
    for row in rounds:
        virtual, wall, sent = (
            virtual + row.virtual_seconds,
            wall + row.wall_seconds,
            sent + row.bytes_up + row.bytes_down,
        )
        energy_known = energy_known and row.joules is not None
        joules, memory = joules + (row.joules or 0.0), max(memory, row.peak_memory_bytes or 0)
        value = row.device_accuracy_mean if quality == "device_accuracy_mean" else None
        if quality != "device_accuracy_mean" and row.round in measured:
            value = getattr(measured[row.round], quality)
        if value is not None:
            sparsity = row.sparsity if quality == "device_accuracy_mean" else row.global_sparsity
            known = joules if energy_known else None
            yield Point(row.round, value, sparsity, virtual, wall, sent, known, memory or None)


def _by_run(rows: Sequence[Any]) -> dict[str, list[Any]]:
    return {run_id: list(group) for run_id, group in itertools.groupby(rows, key=lambda row: row.run_id)}
