"""The job that the form stands for: what it begins with, and what somebody changed. No Streamlit here.

A field that nobody gave is not in the job file, so that what suits the text and the model is chosen for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slimfed.clients.errors import InputError
from slimfed.dashboard import job_fields
from slimfed.platform.job.job import Job, job_to_dict, parse_job
from slimfed.platform.job.overrides import merge
from slimfed.platform.job.presets import PRESETS
from slimfed.platform.launch.quick_check import quick_problems
from slimfed.platform.launch.suiting import BUILTIN, suit

METHOD = "method.name"
_NAMED = ("name", "seed", METHOD)


@dataclass(frozen=True)
class Draft:
    """``document``: the job file. ``job``: None if it is wrong. ``problems``: one a line.

    ``shown``: the value of every field by its path. ``chosen``: why fields that nobody gave have their values.
    """

    document: dict[str, Any]
    job: Job | None
    problems: tuple[str, ...]
    shown: dict[str, Any]
    chosen: dict[str, str]

    def problem_of(self, path: str) -> str | None:
        """What is wrong with a field."""
        return by_field(self.problems).get(path)


def drafted(base: Mapping[str, Any], changes: Mapping[str, Any], rows: int | None = None) -> Draft:
    """The job of ``base`` with ``changes`` (by path; None: not given). ``rows``: training texts, if they are known."""
    document = changed(base, changes)
    job, problems = checked(document)
    if job is None:
        return Draft(document, None, problems, dict(job_fields.leaves(merge(defaults(document), document))), {})
    fitting, lines = suit(job, rows or 0, real=rows is None)
    chosen = dict(_reason(line) for line in lines)
    if rows is None and _foreign(job) and "rounds" not in job.training.model_fields_set:
        chosen["training.rounds"] = "by the number of texts, when the run starts"
    return Draft(document, job, problems, dict(job_fields.leaves(job_to_dict(fitting))), chosen)


def changed(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The job file of ``base`` with ``changes``; a base of another method keeps what its preset does not set."""
    below = base
    if METHOD in changes and changes[METHOD] != dict(job_fields.leaves(base)).get(METHOD):
        below = _without_preset(base)
    values = {path: value for path, value in job_fields.leaves(below) if path not in changes}
    return job_fields.tables(values | dict(changes))


def checked(document: Mapping[str, Any]) -> tuple[Job | None, tuple[str, ...]]:
    """The job of a document, and what is wrong with it or with the files that it names, one line a field."""
    try:
        job = parse_job(document)
    except InputError as error:
        return None, tuple(str(error).splitlines())
    return job, tuple(quick_problems(job))


def by_field(problems: tuple[str, ...]) -> dict[str, str]:
    """Problems by the path that their line begins with."""
    return {line.partition(":")[0].partition(" =")[0].partition("[")[0].strip(): line for line in problems}


def defaults(document: Mapping[str, Any]) -> dict[str, Any]:
    """Every field of a job that names nothing but the method of this one."""
    section = document.get("method", {})
    method = section.get("name") if isinstance(section, Mapping) else None
    return job_to_dict(parse_job({"method": {"name": method}} if method in PRESETS else {}))


def _without_preset(document: Mapping[str, Any]) -> dict[str, Any]:
    """A job without the values that its method's preset or the defaults would give it anyhow."""
    usual = dict(job_fields.leaves(defaults(document)))
    values = job_fields.leaves(document)
    return job_fields.tables({path: value for path, value in values if path in _NAMED or value != usual.get(path)})


def _reason(line: str) -> tuple[str, str]:
    """Field and reason of a line such as ``training.rounds = 20: not given; ...``."""
    field, _, reason = line.partition(" = ")
    return field, reason.partition("not given; ")[2]


def _foreign(job: Job) -> bool:
    return not job.data.path.startswith(BUILTIN)
