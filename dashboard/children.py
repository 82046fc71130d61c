"""Commands of slimfed that pages start and do not wait for: an estimate, an export.

A command is a process of its own, so that the dashboard neither imports what computes nor stands still. It belongs to
the dashboard, not to a visitor: another page, or a reload, finds it again by its key.
"""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import streamlit as st

from slimfed.dashboard.access import login
from slimfed.dashboard.source import Source
from slimfed.platform.launch.child_environment import child_environment
from slimfed.platform.launch.process_guard import dying_with_parent

LONGEST_SECONDS = 3600.0
"""A command that takes longer is ended."""
START_SECONDS = 30.0
"""Longest wait for a new process."""

PROGRAM = "from slimfed.platform.cli import main; main()"


class Child:
    """A command that was started; a thread waits for it and collects what it writes."""

    def __init__(
        self, arguments: list[str], environment: dict[str, str], longest: float, spent: Path | None = None
    ) -> None:
        """Raises ``OSError`` if it cannot be started."""
        self._longest, self._began, self._spent = longest, time.monotonic(), spent
        self._output = self._errors = ""
        self._late = False
        started: Future[subprocess.Popen[str]] = Future()
        self._thread = threading.Thread(target=self._collect, args=(arguments, environment, started), daemon=True)
        self._thread.start()
        self._process = started.result(START_SECONDS)

    @property
    def running(self) -> bool:
        """True until it has ended, and what it wrote is there."""
        return self._thread.is_alive()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    @property
    def answer(self) -> str:
        """What it wrote to standard output."""
        return self._output

    @property
    def problems(self) -> tuple[str, ...]:
        """Its errors, one a line; empty if it did what it was asked to."""
        if self.running or not self._process.returncode:
            return ()
        if self._late:
            return (f"it took longer than {self._longest:.0f} s and was ended",)
        return problems_in(self._errors, self._process.returncode)

    def end(self) -> None:
        """End it, if it has not ended."""
        self._process.kill()

    def _collect(
        self, arguments: list[str], environment: dict[str, str], started: "Future[subprocess.Popen[str]]"
    ) -> None:
        """Start it from this thread, which ends with the dashboard, and the command with the thread."""
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                preexec_fn=dying_with_parent(),
            )
        except OSError as error:
            started.set_exception(error)
            return
        started.set_result(process)
        try:
            self._output, self._errors = process.communicate(timeout=self._longest)
        except subprocess.TimeoutExpired:
            self._late = True
            process.kill()
            self._output, self._errors = process.communicate()
        if self._spent is not None:
            self._spent.unlink(missing_ok=True)


def problems_in(errors: str, code: int) -> tuple[str, ...]:
    """The errors that a command of slimfed wrote to standard error before it ended with ``code``."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    named = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return tuple(named or lines[-1:] or [f"slimfed ended with code {code}"])


def environment(source: Source) -> dict[str, str]:
    """That of a command on the store and home of the pages."""
    return {**child_environment(os.environ), "SLIMFED_HOME": str(source.home), "SLIMFED_STORE": source.named}


def begin(
    source: Source, key: str, arguments: list[str], seconds: float = LONGEST_SECONDS, spent: Path | None = None
) -> Child:
    """Start ``slimfed`` with ``arguments`` in place of the command of that key. ``spent``: a file to remove at its end.

    Raises ``InputError`` for a viewer.
    """
    login.check_operator()
    old = _children().pop(key, None)
    if old is not None:
        old.end()
    child = _children()[key] = Child(arguments, environment(source), seconds, spent)
    return child


def child(key: str) -> Child | None:
    """The command that was started last under this key."""
    return _children().get(key)


@st.cache_resource(show_spinner=False)
def _children() -> dict[str, Child]:
    return {}
