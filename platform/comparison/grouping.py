"""Groups of runs that differ only in their seed, and the names of groups."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from slimfed.clients.errors import InputError
from slimfed.platform.comparison.course import Course
from slimfed.platform.job.job import automatic_local_steps, job_to_dict, parse_job

_NOT_THE_JOB = ("seed", "name", "store.url", "engine.name", "engine.workers", "engine.cohort_size")
"""Fields for the identity, storage and computation of a run, which do not change its results."""

_STEPS = "bandit.local_steps"

DISTURBANCES = ("fleet.dropout", "disturbance.")
"""Fields of disturbances; a name that ends in a dot is a whole section."""


@dataclass(frozen=True)
class Group:
    """Courses that differ in their seed only.

    ``fields``: every compared field of the job, by its dotted name. ``differences``: those in which the compared groups
    differ. ``name``: made of the differences; ``calm_name``: the same without disturbances.
    """

    name: str
    calm_name: str
    fields: Mapping[str, Any]
    differences: Mapping[str, Any]
    courses: tuple[Course, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of its runs."""
        return tuple(course.seed for course in self.courses)

    @property
    def undisturbed(self) -> Mapping[str, Any]:
        """The fields without those of a disturbance."""
        return {path: value for path, value in self.fields.items() if not is_disturbance(path)}

    @property
    def disturbance(self) -> Mapping[str, Any]:
        """The fields of a disturbance."""
        return {path: value for path, value in self.fields.items() if is_disturbance(path)}


def is_disturbance(path: str) -> bool:
    """True for a field of a disturbance."""
    return any(path.startswith(each) if each.endswith(".") else path == each for each in DISTURBANCES)


def grouped(runs: Iterable[Course]) -> tuple[Group, ...]:
    """The groups in order of their first run, each named by its differences.

    A field that every method's preset sets for itself is implied by ``method.name`` and not part of the name.
    """
    groups: dict[str, list[Course]] = {}
    for course in runs:
        groups.setdefault(json.dumps(job_fields(course.job), sort_keys=True), []).append(course)
    fields = [job_fields(group[0].job) for group in groups.values()]
    different = [path for path in _paths(fields) if len({_key(each.get(path)) for each in fields}) > 1]
    named = [path for path in different if not _implied(path, fields)]
    named = named or ["method.name"]
    return tuple(
        Group(
            _name(each, named, named),
            _name(each, [path for path in named if not is_disturbance(path)], named),
            each,
            {path: each.get(path) for path in different},
            tuple(sorted(courses, key=lambda course: (course.seed, course.run_id))),
        )
        for each, courses in zip(fields, groups.values(), strict=True)
    )


def job_fields(job: Mapping[str, Any]) -> dict[str, Any]:
    """Every field of a job as it is in the store, by dotted name; without seed, name and store.

    Local steps that follow from ``training.local_steps`` are "auto": the one field says what differs.
    """
    fields = {path: value for path, value in _leaves(job) if path not in _NOT_THE_JOB}
    usual, events = fields.get("training.local_steps"), fields.get("pruning.events", 1)
    if usual and fields.get(_STEPS) == automatic_local_steps(usual, events):
        fields[_STEPS] = "auto"
    return fields


def _implied(path: str, fields: Sequence[Mapping[str, Any]]) -> bool:
    """True if ``path`` has the value of the method's preset, or else the default, in every job."""
    if path == "method.name":
        return False
    return all(_key(each.get(path)) == _key(_preset(str(each["method.name"])).get(path)) for each in fields)


@lru_cache(maxsize=64)
def _preset(name: str) -> Mapping[str, Any]:
    """The fields of a job with only ``method.name`` set; none for an unknown method."""
    try:
        return job_fields(job_to_dict(parse_job({"method": {"name": name}})))
    except InputError:
        return {}


def _name(fields: Mapping[str, Any], paths: Sequence[str], among: Sequence[str]) -> str:
    """Such as ``fedspine, target_sparsity=0.5``: the method, if it differs ``among`` the groups, and what else does."""
    short = short_paths(among)
    rest = [f"{short[path]}={shown(fields.get(path))}" for path in paths if path != "method.name"]
    method = [str(fields["method.name"])] if "method.name" in among or not rest else []
    return ", ".join([*method, *rest])


def short_paths(paths: Sequence[str]) -> dict[str, str]:
    """Each dotted field by its last name, or as a whole where two of ``paths`` end alike."""
    last = {path: path.rpartition(".")[2] for path in paths}
    ends = list(last.values())
    return {path: end if ends.count(end) == 1 else path for path, end in last.items()}


def shown(value: Any) -> str:
    """A value as in a job file, on one line; of a file or folder its name."""
    if value is None:
        return "none"
    if isinstance(value, str):
        return Path(value).name if value.startswith("/") else value
    return json.dumps(value)


def _paths(every: Sequence[Mapping[str, Any]]) -> list[str]:
    """All fields, the method's name first, then in the order of the job file."""
    paths = list(dict.fromkeys(path for fields in every for path in fields))
    return sorted(paths, key=lambda path: path != "method.name")


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
