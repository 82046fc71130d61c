"""Progress of a run on standard error: a live bar in a terminal, one plain line a round elsewhere."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from slimfed.clients.plain_text import clean
from slimfed.platform.console import notes
from slimfed.platform.format import percent, seconds
from slimfed.platform.under_way import UnderWay

_LINE_SECONDS = 15.0
"""Without a terminal: seconds between lines on a round that is under way."""


@dataclass(frozen=True)
class Snapshot:
    """The progress of a run. ``began``: the server is running; ``stopping``: a stop was requested; ``slowest``: the
    class of the last round's slowest device; ``sample``: on how many test texts the accuracy stands, if not on all;
    ``current``: what it is doing at this moment, if that is known.
    """

    began: bool
    stopping: bool
    rounds_done: int
    rounds: int
    accuracy: float | None
    sparsity: float | None
    virtual_seconds: float
    slowest: str | None
    sample: str = ""
    current: UnderWay | None = None

    @property
    def state(self) -> str:
        """In one word, or two."""
        if self.stopping:
            return "stopping"
        if self.current is not None:
            return self.current.state
        return "running" if self.began else "preparing"

    def describe(self) -> str:
        """The figures in one line."""
        parts = [
            f"accuracy {percent(self.accuracy)} {self.sample}".rstrip(),
            f"sparsity {percent(self.sparsity)}",
            f"virtual {seconds(self.virtual_seconds)}",
        ]
        return ", ".join([*parts, f"slowest {self.slowest}"] if self.slowest else parts)


class Display(Protocol):
    """Shows snapshots; used as a context manager."""

    def __enter__(self) -> "Display": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, snapshot: Snapshot) -> None:
        """Show a snapshot; called a few times a second."""
        ...


def open_display() -> Display:
    """The display that suits standard error."""
    return LiveBar(_progress()) if sys.stderr.isatty() else PlainLines()


class NoDisplay:
    """Shows nothing."""

    def __enter__(self) -> "NoDisplay":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def show(self, snapshot: Snapshot) -> None:
        """Show nothing."""


class Board:
    """Displays for several runs at once, each with its name; used as a context manager."""

    def __init__(self) -> None:
        self._shared = _progress() if sys.stderr.isatty() else None

    def __enter__(self) -> "Board":
        if self._shared is not None:
            self._shared.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shared is not None:
            self._shared.stop()

    def display(self, name: str) -> Display:
        """The display of one run; thread-safe."""
        return LiveBar(self._shared, name, alone=False) if self._shared is not None else PlainLines(f"{name}: ")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.fields[label]}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[done]}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        console=notes(),
    )


class PlainLines:
    """One line a round, each begun with ``prefix``."""

    def __init__(self, prefix: str = "", now: Callable[[], float] = time.monotonic) -> None:
        self._prefix = clean(prefix) + " " if prefix else ""
        self._printed = -1
        self._stopping = False
        self._now = now
        self._line = now()

    def __enter__(self) -> "PlainLines":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def show(self, snapshot: Snapshot) -> None:
        """Print the line of a new round, and now and then one on a round that takes long."""
        if snapshot.stopping and not self._stopping:
            self._stopping = True
            sys.stderr.write(f"{self._prefix}stopping\n")
        if snapshot.rounds_done == self._printed or (snapshot.rounds_done == 0 and self._printed >= 0):
            self._maybe_print_current(snapshot.current)
            return
        self._printed = snapshot.rounds_done
        if snapshot.rounds_done == 0:
            self._print("preparing")
        else:
            self._print(f"round {snapshot.rounds_done}/{snapshot.rounds}: {snapshot.describe()}")

    def _maybe_print_current(self, current: UnderWay | None) -> None:
        if current is not None and current.doing and self._now() - self._line >= _LINE_SECONDS:
            self._print(f"round {current.round}/{current.rounds}: {'; '.join(current.details())}")

    def _print(self, text: str) -> None:
        self._line = self._now()
        sys.stderr.write(f"{self._prefix}{clean(text)}\n")
        sys.stderr.flush()


class LiveBar:
    """A bar that redraws itself, with the figures of the last round. It is one of several unless it is ``alone``."""

    def __init__(self, progress: Progress, name: str = "", *, alone: bool = True) -> None:
        self._progress = progress
        self._name = clean(name, 200)
        self._alone = alone
        self._task: TaskID | None = None

    def __enter__(self) -> "LiveBar":
        if self._alone:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._alone:
            self._progress.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Redraw."""
        current = snapshot.current
        doing = "round" if snapshot.state == "running" else snapshot.state
        label = f"{self._name}: {doing}" if self._name else doing
        parts = [*(current.details() if current else ()), *([snapshot.describe()] if snapshot.rounds_done else ())]
        figures = clean("; ".join(parts))
        completed = snapshot.rounds_done if current is None else current.share * snapshot.rounds
        if self._task is None:
            self._task = self._progress.add_task("run", total=snapshot.rounds, done=0, label=label, figures=figures)
        self._progress.update(self._task, completed=completed, done=snapshot.rounds_done, label=label, figures=figures)
