"""What a search chooses from: values or ranges of fields, and the job of each choice."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slimfed.clients.errors import InputError
from slimfed.platform.comparison.grouping import short_paths
from slimfed.platform.job.job import Job
from slimfed.platform.job.overrides import parse_value
from slimfed.platform.sweep import Variant, named, split_axis, sweep_name

_RANGE = re.compile(r"(?P<log>log:)?(?P<low>[^.\s]\S*?)\.\.(?P<high>\S+)")
_DIGITS = 4
"""Significant digits of a number within a range."""


@dataclass(frozen=True)
class Values:
    """Some values of a field, as they were written."""

    field: str
    texts: tuple[str, ...]

    @property
    def ends(self) -> tuple[str, ...]:
        """Each of the values: all are checked before the first run."""
        return self.texts

    def holding(self, value: Any) -> str | None:
        """The one of the values that the job has; None if it has another."""
        return next((text for text in self.texts if parse_value(text) == value), None)


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; whole ones if both are. ``log``: evenly by their logarithm."""

    field: str
    low: float
    high: float
    whole: bool
    log: bool

    @property
    def ends(self) -> tuple[str, ...]:
        """The least and the greatest number."""
        return self.written(self.low), self.written(self.high)

    def holding(self, value: Any) -> float | None:
        """The job's value if it is a number of the range, else None."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        kind = not self.whole or float(value).is_integer() if number else False
        return value if kind and self.low <= value <= self.high else None

    def written(self, value: float) -> str:
        """The number as the job has it: with four significant digits."""
        return str(int(value)) if self.whole else repr(float(f"{value:.{_DIGITS}g}"))


Axis = Values | Range
Make = Callable[[Sequence[str]], Job]


@dataclass(frozen=True)
class Space:
    """``make``: the job of settings such as ``training.rounds=5``. ``fixed``: settings of all runs. ``axes``: what the
    search chooses. ``sweep``: name of the sweep of its runs.
    """

    make: Make
    fixed: tuple[str, ...]
    axes: tuple[Axis, ...]
    base: Job
    sweep: str

    def variant(self, chosen: Mapping[str, Any]) -> Variant:
        """The run of a choice, a value a field. Raises ``InputError`` if its job is not valid."""
        short = short_paths([axis.field for axis in self.axes])
        texts = {axis.field: _text(axis, chosen[axis.field]) for axis in self.axes}
        label = ", ".join(f"{short[field]}={text}" for field, text in texts.items())
        return named(self._job(texts), label, self.sweep)

    def own_choice(self) -> dict[str, Any]:
        """The job's own values, as far as the search could choose them."""
        values = {axis.field: axis.holding(_value(self.base, axis.field)) for axis in self.axes}
        return {field: value for field, value in values.items() if value is not None}

    def shown(self, chosen: Mapping[str, Any]) -> dict[str, str]:
        """The values of a choice by field, as the job has them."""
        return {axis.field: _text(axis, chosen[axis.field]) for axis in self.axes}

    def _job(self, texts: Mapping[str, str]) -> Job:
        return self.make([*self.fixed, *(f"{field}={text}" for field, text in texts.items())])

    def check(self) -> None:
        """Raises ``InputError`` with a line for each value, or end of a range, that the job cannot have."""
        first = {axis.field: axis.ends[0] for axis in self.axes}
        problems = []
        for axis in self.axes:
            for text in axis.ends:
                try:
                    self._job(first | {axis.field: text})
                except InputError as error:
                    problems += [f"{axis.field}={text}: {line}" for line in str(error).splitlines()]
        if problems:
            raise InputError("\n".join(dict.fromkeys(problems)))


def read_space(make: Make, arguments: Sequence[str], trials: int, name: str | None = None) -> Space:
    """The space of ``arguments`` such as ``bandit.ranks=[2],[4]`` and ``training.learning_rate=log:1e-4..1e-2``.

    Raises ``InputError`` for ranges that are none, for values that the job cannot have, if nothing is left to choose,
    or if ``trials`` runs could try every combination.
    """
    axes, fixed = [], []
    for argument in arguments:
        field, texts = split_axis(argument)
        axis = _axis(field, texts)
        if isinstance(axis, Values) and len(texts) == 1:
            fixed.append(f"{field}={texts[0]}")
        else:
            axes.append(axis)
    _check_fields([axis.field for axis in axes], fixed)
    _check_size(axes, trials)
    base = make(fixed)
    space = Space(make, tuple(fixed), tuple(axes), base, sweep_name(name or base.name))
    space.check()
    return space


def _axis(field: str, texts: Sequence[str]) -> Axis:
    match = _RANGE.fullmatch(texts[0]) if len(texts) == 1 else None
    if match is None:
        return Values(field, tuple(texts))
    try:
        low, high = float(match["low"]), float(match["high"])
    except ValueError:
        return Values(field, tuple(texts))
    log, whole = match["log"] is not None, all(re.fullmatch(r"[+-]?\d+", match[end]) for end in ("low", "high"))
    if not (math.isfinite(low) and math.isfinite(high)) or low >= high or (log and low <= 0):
        raise InputError(
            f"--set {field}={texts[0]}: must be a range low..high of numbers, with low < high, and low > 0 after log:"
        )
    return Range(field, low, high, whole, log)


def _check_fields(fields: Sequence[str], fixed: Sequence[str]) -> None:
    every = [*fields, *(argument.partition("=")[0] for argument in fixed)]
    twice = [field for field in every if every.count(field) > 1]
    if twice:
        raise InputError(f"--set {twice[0]}: is given twice")
    if not fields:
        raise InputError(
            "--search: nothing to choose; give values (--set bandit.ranks=[2],[4],[8]) or a range "
            "(--set training.learning_rate=log:1e-4..1e-2)"
        )
    if "seed" in fields:
        raise InputError("--set seed: a search would choose the luckiest seed; repeat its best values with --seeds")


def _check_size(axes: Sequence[Axis], trials: int) -> None:
    if all(isinstance(axis, Values) for axis in axes):
        combinations = math.prod(len(axis.ends) for axis in axes)
        if combinations <= trials:
            raise InputError(
                f"--trials {trials}: there are {combinations} combinations; without --search the sweep runs them all"
            )


def _text(axis: Axis, value: Any) -> str:
    return axis.written(value) if isinstance(axis, Range) else str(value)


def _value(job: Job, field: str) -> Any:
    """The value of a dotted field, as JSON has it; None if there is none."""
    value: Any = job.model_dump(mode="json")
    for part in field.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
