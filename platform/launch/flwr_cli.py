"""Flower's command line as a library: submitting, querying and stopping an app, with JSON."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimfed.clients.errors import SlimfedError
from slimfed.platform.launch.child_environment import child_environment

_COMMAND_SECONDS = 60.0

# No telemetry and no version check.
_SETTINGS = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
# Colours, which a notebook's kernel forces on what it starts, would be written into the JSON.
_UNSET = ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


class LaunchError(SlimfedError, RuntimeError):
    """The Flower runtime could not be started or used; the text says why, with the last lines of its log."""


@dataclass(frozen=True)
class AppStatus:
    """Flower's status of the app: ``status`` (pending, starting, running, finished:completed, ...) and its details."""

    status: str
    details: str

    @property
    def finished(self) -> bool:
        """True once the app has ended, in whatever way."""
        return self.status.startswith("finished")


class Flower:
    """``flwr``; ``connection`` names a SuperLink in Flower's configuration."""

    def __init__(self, environment: Mapping[str, str], connection: str) -> None:
        self.environment = environment
        self.connection = connection

    def submit(self, app: Path, configuration: Path) -> str:
        """Ask for a run of ``app`` with the run configuration in a TOML file; returns Flower's run id."""
        arguments = [str(app), self.connection, "--run-config", str(configuration)]
        return str(self._json("run", *arguments)["run-id"])

    def status(self, run_id: str) -> AppStatus:
        """Status of the app by Flower. Raises :class:`LaunchError`."""
        (run,) = self._json("ls", self.connection, "--run-id", run_id)["runs"]
        return AppStatus(run["status"], run["status-details"])

    def app_log(self, run_id: str) -> str:
        """What the app has printed so far. Raises :class:`LaunchError`."""
        return self._command("log", run_id, self.connection, "--show")

    def stop(self, run_id: str) -> None:
        """End the app. Raises :class:`LaunchError`."""
        self._json("stop", run_id, self.connection)

    def _json(self, *arguments: str) -> dict[str, Any]:
        """Run a ``flwr`` command and return its JSON answer."""
        text = self._command(*arguments, "--format", "json")
        try:
            answer: dict[str, Any] = json.loads(text)
        except json.JSONDecodeError:
            raise LaunchError(f"flwr {arguments[0]} gave no JSON: {_one_line(text)}") from None
        if not answer.get("success"):
            raise LaunchError(f"flwr {arguments[0]} failed: {answer.get('error-message', _one_line(text))}")
        return answer

    def _command(self, *arguments: str) -> str:
        command = [program("flwr", self.environment), *arguments]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                timeout=_COMMAND_SECONDS,
                start_new_session=True,  # Ctrl-C must reach only the launcher
            )
        except subprocess.TimeoutExpired:
            raise LaunchError(f"flwr {arguments[0]} did not answer within {_COMMAND_SECONDS:.0f} s") from None
        if done.returncode and not done.stdout.lstrip().startswith("{"):
            raise LaunchError(f"flwr {arguments[0]} failed: {_one_line(done.stderr or done.stdout)}")
        return done.stdout


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Environment of Flower's programs, with the user's Flower configuration."""
    inherited = {name: value for name, value in child_environment().items() if name not in _UNSET}
    # Flower starts its parts by name, also if the virtual environment is not activated.
    places = [str(Path(sys.executable).parent), sysconfig.get_path("scripts"), inherited.get("PATH", os.defpath)]
    return {**inherited, **_SETTINGS, "PATH": os.pathsep.join(places), **extra}


def program(name: str, environment: Mapping[str, str]) -> str:
    """The path of a program of Flower's. Raises :class:`LaunchError`."""
    path = shutil.which(name, path=environment["PATH"])
    if path is None:
        raise LaunchError(
            f"program {name} was not found; install slimfed with its server extra: pip install 'slimfed[server]'"
        )
    return path


def _one_line(text: str) -> str:
    return " ".join(text.split())[-500:] or "no output"
