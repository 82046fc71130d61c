"""Pandas frames of courses and comparisons. Pure functions, no Streamlit."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from slimfed.dashboard import job_fields
from slimfed.platform.comparison.course import BUDGETS, Cost, Course
from slimfed.platform.comparison.report import Comparison


def short_names(runs: Mapping[str, str]) -> dict[str, str]:
    """Names of the runs in a legend; equal names get the end of the id."""
    names = list(runs.values())
    return {run_id: name if names.count(name) == 1 else f"{name} {run_id[-3:]}" for run_id, name in runs.items()}


def course_frame(course: Course) -> pd.DataFrame:
    """One line a point, with the columns that a curve needs."""
    rows = [(p.round, p.quality, p.virtual_seconds, p.bytes / 1e6) for p in course.points]
    return pd.DataFrame(rows, columns=["round", "quality", "virtual_clock", "megabytes"])


def target_frame(comparison: Comparison, names: Mapping[str, str]) -> pd.DataFrame:
    """Cost-to-Target: one line a group of runs, quickest first as far as it is known."""
    rows = [
        {
            "group": _named(result.group.courses, names),
            "runs": f"{len(result.reached.values)} of {result.reached.of}",
            "virtual_seconds": result.prices["virtual_seconds"].mean,
            "slower": result.slower,
            "wall_seconds": result.prices["wall_seconds"].mean,
            "megabytes": _scaled(result.prices["bytes"].mean, 1e-6),
            "joules": result.prices["joules"].mean,
            "final": result.final.mean,
            "best": result.best.mean,
            "sparsity": result.sparsity.mean,
        }
        for result in comparison.groups
    ]
    return pd.DataFrame(rows).sort_values("virtual_seconds", na_position="last", ignore_index=True)


def budget_frame(comparison: Comparison, names: Mapping[str, str]) -> pd.DataFrame:
    """Quality-under-Budget: one line a group, one column a cost."""
    return pd.DataFrame(
        [
            {"group": _named(result.group.courses, names)}
            | {str(bought.cost): bought.quality.mean for bought in result.budgets}
            for result in comparison.groups
        ]
    )


def usual_budgets(courses: Sequence[Course]) -> dict[Cost, float]:
    """Default budgets: half of the smallest total of each known cost; the whole memory."""
    found: dict[Cost, float] = {}
    for cost in BUDGETS:
        spent = [value for course in courses if course.last and (value := course.last.cost(cost))]
        if spent:
            found[cost] = min(spent) / (1 if cost == "memory_bytes" else 2)
    return found


def pareto_frame(courses: Sequence[Course], names: Mapping[str, str]) -> pd.DataFrame:
    """Every point of every run: ``cost`` is the share of the prunable parameters left; ``front``: on the Pareto
    front."""
    rows = [(names[c.run_id], p.round, 1 - p.sparsity, p.quality) for c in courses for p in c.points]
    frame = pd.DataFrame(rows, columns=["run", "round", "cost", "quality"])
    ordered = frame.sort_values(["cost", "quality"], ascending=[True, False], kind="stable")
    best = ordered["quality"].cummax().shift(fill_value=-np.inf)
    return frame.assign(front=(ordered["quality"] > best).reindex(frame.index))


def differences_frame(jobs: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """The fields in which the jobs differ: ``field``, and one column a run with values as a job file has them."""
    flat = {name: dict(job_fields.leaves(job)) for name, job in jobs.items()}
    paths = list(dict.fromkeys(path for job in flat.values() for path in job))
    rows = []
    for path in paths:
        values = {name: job.get(path) for name, job in flat.items()}
        if len({json.dumps(value, sort_keys=True) for value in values.values()}) > 1:
            rows.append({"field": path} | {name: job_fields.written(value) or "–" for name, value in values.items()})
    return pd.DataFrame(rows, columns=["field", *jobs])


def _named(courses: Sequence[Course], names: Mapping[str, str]) -> str:
    return ", ".join(names[course.run_id] for course in courses)


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else value * scale
