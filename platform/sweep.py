"""Sweeps: checked jobs for all combinations of values and seeds."""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimfed.clients.errors import InputError
from slimfed.clients.plain_text import clean
from slimfed.platform.comparison.grouping import short_paths
from slimfed.platform.job.job import Job, given_fields, load_job, parse_job
from slimfed.platform.job.overrides import merge, parse_sets

_LONGEST_NAME = 200
_OPENING, _CLOSING, _QUOTES = "[{", "]}", "\"'"


@dataclass(frozen=True)
class Variant:
    """One run of a sweep. ``label``: its values; ``first``: the first seed of its combination."""

    label: str
    job: Job
    first: bool


@dataclass(frozen=True)
class Sweep:
    """A named set of runs that belong together."""

    name: str
    variants: tuple[Variant, ...]


def expand(path: Path | str | None, arguments: Sequence[str], seeds: int, name: str | None = None) -> Sweep:
    """Every combination of ``arguments`` such as ``method.name=fedspine,hetlora``, each with ``seeds`` seeds.

    Seeds count up from the job's. Combinations come in the order of the arguments, the last one changing fastest; runs
    are named after the sweep (``name``, or else the job's) and their label. Raises ``InputError`` with a line for each
    problem of each combination; nothing is opened or written.
    """
    axes = [split_axis(argument) for argument in arguments]
    _check_axes([field for field, _ in axes], seeds)
    return expand_jobs(
        lambda chosen: load_job(path, [f"{field}={value}" for field, value in chosen.items()]), dict(axes), seeds, name
    )


def expand_jobs(
    make: Callable[[Mapping[str, Any]], Job], axes: Mapping[str, Sequence[Any]], seeds: int, name: str | None = None
) -> Sweep:
    """The same for values of any kind: ``make`` gives the job of a combination, one value a field of ``axes``."""
    called = None if name is None else sweep_name(name)
    short = short_paths([field for field in axes if len(axes[field]) > 1])
    variants: list[Variant] = []
    problems: list[str] = []
    for values in itertools.product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        varied = ", ".join(
            f"{short[field]}={_written(value)}" for field, value in chosen.items() if len(axes[field]) > 1
        )
        try:
            job = make(chosen)
            called = called or job.name
            variants += _seeded(job, varied, seeds, called)
        except InputError as error:
            problems += [f"{varied}: {line}" if varied else line for line in str(error).splitlines()]
    if problems or called is None:
        raise InputError("\n".join(dict.fromkeys(problems)) or "the sweep has no combination: a field has no values")
    check_different(variants)
    return Sweep(called, tuple(variants))


def with_baseline(sweep: Sweep, criterion: str) -> Sweep:
    """The sweep, and for each of its runs that prunes the same run with ``method.importance = criterion``, behind it.

    So a criterion is seen beside its control, such as random units. Runs that have this criterion already, or that two
    runs would share, are not made twice. Raises ``InputError`` for a job that cannot have the criterion.
    """
    variants: list[Variant] = []
    made = {_bare(variant.job).model_dump_json() for variant in sweep.variants}
    for variant in sweep.variants:
        variants.append(variant)
        if variant.job.method.target_sparsity == 0:
            continue
        label = f"{variant.label}, importance={criterion}"
        name = f"{variant.job.name}, importance={criterion}"[:_LONGEST_NAME]
        asked = {"name": name, "method": {"importance": criterion}}
        control = parse_job(merge(given_fields(variant.job), asked))
        key = _bare(control).model_dump_json()
        if key not in made:
            made.add(key)
            variants.append(Variant(label, control, variant.first))
    return Sweep(sweep.name, tuple(variants))


def sweep_name(name: str) -> str:
    """The name of a sweep as the store has it: one plain line of at most 200 characters."""
    return clean(name, _LONGEST_NAME)


def _written(value: Any) -> str:
    """A value in a label: text as it is, everything else as JSON writes it."""
    return value if isinstance(value, str) else json.dumps(value)


def check_different(variants: Sequence[Variant]) -> None:
    """Raises ``InputError`` if two of the runs are equal, or if their stores differ."""
    if len({variant.job.store.url for variant in variants}) > 1:
        raise InputError("store.url: runs that are to be compared must be recorded in one store")
    seen: dict[str, str] = {}
    for variant in variants:
        key = _bare(variant.job).model_dump_json()
        if key in seen:
            raise InputError(f"{seen[key]!r} and {variant.label!r} are the same job; leave one of them out")
        seen[key] = variant.label


def named(job: Job, label: str, sweep: str, *, first: bool = True) -> Variant:
    """A run of a sweep, named after the sweep and its label."""
    name = f"{sweep}: {label}" if label != sweep else sweep
    return Variant(label, Job.model_validate(given_fields(job) | {"name": name[:_LONGEST_NAME]}), first)


def same_work(done: Job, asked: Job) -> bool:
    """True if the job of a run equals the wanted one, except for name, store and tracking.

    Values of ``engine`` and ``data`` that the wanted job leaves at "auto" are not compared.
    """
    opened = done
    for name in ("engine", "data"):
        left_open = {field: value for field, value in getattr(asked, name) if value == "auto"}
        opened = opened.model_copy(update={name: getattr(done, name).model_copy(update=left_open)})
    return _bare(opened) == _bare(asked)


def split_values(text: str) -> list[str]:
    """``"a,[1,2],'x,y'"`` -> ``["a", "[1,2]", "'x,y'"]``: commas within brackets and quotes belong to a value."""
    return [part.strip() for part in _split(text)]


def split_axis(argument: str) -> tuple[str, list[str]]:
    """``"field=value,value"`` as the field and its values. Raises ``InputError`` for another form."""
    field, _, text = argument.partition("=")
    values = split_values(text)
    parse_sets([f"{field}={values[0]}" if "=" in argument else argument])
    if "" in values:
        raise InputError(f"--set {argument!r}: has an empty value; write field=value,value")
    return field.strip(), values


def _split(text: str) -> Iterator[str]:
    part, depth, quote = "", 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in _QUOTES:
            quote = letter
        elif letter in _OPENING:
            depth += 1
        elif letter in _CLOSING:
            depth -= 1
        elif letter == "," and depth == 0:
            yield part
            part = ""
            continue
        part += letter
    yield part


def _check_axes(fields: Sequence[str], seeds: int) -> None:
    twice = [field for field in fields if fields.count(field) > 1]
    if twice:
        raise InputError(f"--set {twice[0]}: is given twice; write its values behind one another, with commas")
    if "seed" in fields and seeds > 1:
        raise InputError("--seeds: --set seed=... names the seeds already; give one of the two")


def _seeded(job: Job, label: str, seeds: int, sweep: str) -> list[Variant]:
    variants = []
    for seed in range(job.seed, job.seed + seeds):
        full = ", ".join(filter(None, [label, f"seed={seed}" if seeds > 1 else ""])) or job.name
        seeded = Job.model_validate(given_fields(job) | {"seed": seed})
        variants.append(named(seeded, full, sweep, first=seed == job.seed))
    return variants


def _bare(job: Job) -> Job:
    return job.model_copy(update={"name": "", "store": type(job.store)(), "tracking": type(job.tracking)()})
