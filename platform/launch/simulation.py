"""The runtime of a simulated run: one process below a guard, which starts Ray, and is ended with all its processes."""

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

from slimfed.clients.telemetry.telling import VARIABLE as PROGRESS
from slimfed.platform.launch.child_environment import child_environment
from slimfed.platform.launch.flwr_cli import LaunchError
from slimfed.platform.launch.ray_environment import cluster_ray, own_ray, without_foreign_ray
from slimfed.platform.launch.scratch import Scratch, make_scratch, scratch_base
from slimfed.platform.launch.workers import Sizing

_STOP_SECONDS = 20.0
_LINES = 2
_GUARD = "slimfed.platform.launch.process_guard"
_PROGRAM = "slimfed.platform.server.simulation"  # by name, as it imports this package


class Simulation:
    """A simulated run's processes. Use as a context manager; leaving it ends every process it started."""

    def __init__(self, log: Path, sizing: Sizing, variables: Mapping[str, str] | None = None) -> None:
        self.log = log
        self._sizing = sizing
        self._variables = dict(variables or {})
        self._scratch: Scratch | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Simulation":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, run: str, home: Path) -> None:
        """Start the process that computes ``run``; it goes on after this returns."""
        self.start_program([sys.executable, "-m", _PROGRAM, run, str(home), *self._size()])

    def start_program(self, program: list[str]) -> None:
        """Start ``program`` below a guard, with the run's environment. Raises :class:`LaunchError`."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._scratch = make_scratch()
            environment = self._environment(self._scratch.path)
        except OSError as error:
            where = f"TMPDIR = {str(scratch_base())!r}"
            raise LaunchError(
                f"{where}: the run's files cannot be written ({error.strerror}); free some space"
            ) from None
        guard = [sys.executable, "-m", _GUARD, str(self.log), "--scratch", str(self._scratch.path)]
        self._guard = subprocess.Popen(
            [*guard, *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            pass_fds=[self._scratch.descriptor],  # the guard's life locks the scratch folder, too
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Process id of the guard, the ancestor of all other processes."""
        if self._guard is None:
            raise LaunchError("the run's process was not started")
        return self._guard.pid

    @property
    def alive(self) -> bool:
        """True while the guard runs, and so the process of the run."""
        return self._guard is not None and self._guard.poll() is None

    def ailment(self) -> str | None:
        """Why the run can no longer end by itself; None while its process lives."""
        if self.alive:
            return None
        code = None if self._guard is None else self._guard.returncode
        if code is not None and code < 0:
            return f"the guard of the run's processes was killed by {signal.Signals(-code).name}, and they with it"
        return f"the process of the run ended unexpectedly: {self.last_words()}"

    def last_words(self) -> str:
        """The end of the log, in one line."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return " | ".join(lines[-_LINES:]) or "its log is empty"

    def stop(self) -> None:
        """End all processes and remove the scratch folder. Harmless if nothing runs."""
        if self._guard is not None:
            stdin: IO[bytes] | None = self._guard.stdin
            if stdin is not None:
                stdin.close()
            try:
                self._guard.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._guard.kill()
                self._guard.wait()
        if self._scratch is not None:
            self._scratch.remove()
            self._scratch = None

    def _size(self) -> list[str]:
        size = self._sizing
        own = [] if size.cluster else ["--workers", str(size.workers), "--gpus", str(size.gpus)]
        return [str(size.nodes), "--gpu-share", str(size.gpu_share), *own]

    def _environment(self, scratch: Path) -> dict[str, str]:
        inherited = child_environment()
        if self._sizing.cluster:
            return {**inherited, **cluster_ray(scratch, self._sizing.cluster), **self._variables}
        progress = scratch / "progress"
        progress.mkdir(mode=0o700)
        own = {**own_ray(scratch), PROGRESS: str(progress)}
        return {**without_foreign_ray(inherited), **own, **self._variables}
