"""An external SuperLink for real devices: the job is submitted to it and watched from here."""

import os
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from slimfed.clients.errors import InputError
from slimfed.platform.launch.flwr_cli import AppStatus, Flower, LaunchError, environment

# A status request takes a second of processor time; progress is read from the store.
_LOOK_SECONDS = 10.0
# A restart of the SuperLink must not end the run.
_LOOKS_MISSED = 6


def connections(variables: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The SuperLinks that the user's Flower configuration names (``FLWR_HOME``, else ``~/.flwr``)."""
    file = Path(variables.get("FLWR_HOME") or "~/.flwr").expanduser() / "config.toml"
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"Flower's configuration {file} cannot be read: {error}") from None
    named = document.get("superlink", {})
    return {name: table for name, table in named.items() if isinstance(table, dict) and "address" in table}


def check_connection(name: str, variables: Mapping[str, str] = os.environ) -> None:
    """Raises ``InputError`` unless ``name`` is a SuperLink that can be reached securely, or is on this machine."""
    known = connections(variables)
    if name not in known:
        there = ", ".join(repr(each) for each in known) or "none"
        raise InputError(
            f"--federation {name!r}: Flower's configuration names no such SuperLink, only: {there}; "
            "see docs/deployment.md for the lines to add"
        )
    host = str(known[name]["address"]).rpartition(":")[0].strip("[]")
    if known[name].get("insecure") and host not in ("127.0.0.1", "localhost", "::1"):
        raise InputError(
            f"--federation {name!r}: insecure = true sends updates to {host} in the clear; "
            "give root-certificates in place of it (docs/deployment.md)"
        )


class Federation:
    """The launcher's interface to a SuperLink by name. Leaving the context ends the app if it is still running."""

    def __init__(self, name: str, folder: Path, environment_extra: Mapping[str, str] | None = None) -> None:
        self._name = name
        self._folder = folder
        self._flower = Flower(environment(None, environment_extra or {}), name)
        self._submission: str | None = None
        self._next_look = 0.0
        self._missed = 0
        self._status = AppStatus("pending", "")

    def __enter__(self) -> "Federation":
        return self

    def __exit__(self, *_: object) -> None:
        if self._submission is None or self._status.finished:
            return
        try:
            if not self._flower.status(self._submission).finished:
                self._flower.stop(self._submission)
        except LaunchError:
            return  # it is out of reach, and the store has the run's status

    def submit(self, app: Path, settings: Mapping[str, Any]) -> str:
        """Submit ``app``. Raises :class:`LaunchError`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        configuration = self._folder / "run.toml"
        configuration.write_text(tomli_w.dumps(dict(settings)))
        self._submission = self._flower.submit(app, configuration)
        return self._submission

    @property
    def alive(self) -> bool:
        """False after several failed requests in a row."""
        return self._missed < _LOOKS_MISSED

    def ended_within(self, seconds: float) -> bool:
        """False: it has no process here."""
        return not self.alive

    def app_process(self) -> None:
        """None: it runs on the SuperLink's machine."""

    def status(self, submission: str) -> AppStatus:
        """Status of the app, requested at intervals; the last known one while the SuperLink does not answer."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK_SECONDS
            try:
                self._status, self._missed = self._flower.status(submission), 0
            except LaunchError:
                self._missed += 1
        return self._status

    def app_log(self, submission: str) -> str:
        """What the app has printed so far. Raises :class:`LaunchError`."""
        return self._flower.app_log(submission)

    def last_lines(self) -> str:
        """A sentence on the SuperLink after it is gone."""
        return f"{self._name} did not answer {_LOOKS_MISSED} times in a row"
