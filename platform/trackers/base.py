"""What every tracker does: it takes the figures of a run, round by round, to a tool outside of slimfed."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from slimfed.clients.errors import InputError
from slimfed.clients.plain_text import clean
from slimfed.clients.registry import Registry

_LONGEST_VALUE = 500


@dataclass(frozen=True)
class Sample:
    """One value of one series after a round."""

    name: str
    round: int
    value: float
    at: datetime


@dataclass(frozen=True)
class TrackedRun:
    """A run as trackers see it. ``parameters``: fields of its job by dotted name, without what may hold a password."""

    id: str
    name: str
    parameters: dict[str, str | int | float | bool]


@dataclass(frozen=True)
class Destination:
    """Where a tracker writes to.

    ``folder``: the tracker's own, for what stays on this computer; ``project``: the group of runs. ``environment``: the
    tool's own variables, which name its server and its key; they take precedence over the other two.
    """

    folder: Path
    project: str = "slimfed"
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)


class Tracker(ABC):
    """A tool that runs are followed in. One object follows one run, in a process of its own.

    ``begin`` is called first and once, then ``tell`` for each round in order, then ``end``. Any error that they raise
    is reported as an event of the run and tried again with a new object, which begins again. The tool's library is
    imported within them, so that a job that names a tracker is read quickly.
    """

    module: ClassVar[str]
    """The module that its library is imported by."""
    install: ClassVar[str]
    """What ``pip install`` needs to install the library."""

    def problem(self, environment: Mapping[str, str]) -> str | None:
        """Why the tool cannot be used with these variables, with the cure; None if it can. Sends nothing."""
        return None

    @abstractmethod
    def begin(self, run: TrackedRun, where: Destination) -> int:
        """Open the run, or continue it if it is there already; the last round that it has (0: none).

        Rounds up to that one are not told again.
        """

    @abstractmethod
    def tell(self, round: int, samples: Sequence[Sample]) -> None:
        """Take the figures of one round; returns when they are written or sent."""

    @abstractmethod
    def end(self, status: str) -> None:
        """Close the run. ``status``: done, failed, stopped, or another one if the run goes on without this process."""

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the run is to be found now, as text for people; without a password."""


TRACKERS: Registry[type[Tracker]] = Registry(
    "tracking.to", "slimfed.trackers", Tracker, package="slimfed.platform.trackers", classes=True
)
"""All trackers."""


def make_tracker(name: str, environment: Mapping[str, str] = os.environ) -> Tracker:
    """A tracker that can be used. Raises ``InputError`` with the cure if its library or its key is missing."""
    problem = problem_of(name, environment)
    if problem is not None:
        raise InputError(problem)
    return TRACKERS[name]()


def problem_of(name: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """Why the tracker cannot be used on this machine, with the cure; None if it can. The library is not imported."""
    tracker = TRACKERS[name]
    if find_spec(tracker.module) is None:
        return f"the package {tracker.module} is missing: pip install {tracker.install!r}"
    return tracker().problem(environment)


def parameters(job: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Fields of a job by dotted name. ``store``, whose address may hold a password, is left out."""
    return dict(_flat({section: value for section, value in job.items() if section != "store"}))


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str | int | float | bool]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            yield prefix + key, value
        elif value is not None:
            yield prefix + key, clean(value, _LONGEST_VALUE)
