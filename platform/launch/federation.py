"""An external SuperLink for real devices: the job is submitted to it and watched from here."""

import os
import pwd
import socket
import ssl
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from slimfed.clients.errors import InputError
from slimfed.platform.launch.bundle import write_bundle
from slimfed.platform.launch.flwr_cli import AppStatus, Flower, LaunchError, environment

# A status request takes a second of processor time; progress is read from the store.
_LOOK_SECONDS = 10.0
# A restart of the SuperLink must not end the run.
_LOOKS_MISSED = 6
_LINES = 3
_CONNECT_SECONDS = 5.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_NAMED = 3
# By convention of Linux distributions, people's accounts begin here.
_FIRST_PERSON, _NOBODY = 1000, 65534


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
    if known[name].get("insecure") and host not in _LOOPBACK:
        raise InputError(
            f"--federation {name!r}: insecure = true sends updates to {host} in the clear; "
            "give root-certificates in place of it (docs/deployment.md)"
        )
    if not known[name].get("insecure"):
        _refuse_bad_certificate(name, known[name])


def _refuse_bad_certificate(name: str, connection: Mapping[str, Any]) -> None:
    """Raises ``InputError`` if the SuperLink shows a certificate that is not valid, such as an expired one.

    Flower would only say that there is no connection. If none comes about here, Flower may still have one, by a proxy.
    """
    host, _, port = str(connection["address"]).rpartition(":")
    authority = connection.get("root-certificates")
    try:
        trust = ssl.create_default_context(cafile=None if authority is None else str(authority))
        with (
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS) as plain,
            trust.wrap_socket(plain, server_hostname=host.strip("[]")),
        ):
            return
    except ssl.SSLCertVerificationError as error:
        raise InputError(
            f"--federation {name!r}: the certificate that {connection['address']} shows is refused: "
            f"{error.verify_message}; root-certificates = {authority!r} must be of the authority that signed it, and a "
            "new certificate is made as docs/deployment.md says"
        ) from None
    except (OSError, ValueError, OverflowError):
        return


def open_to_others(
    name: str, variables: Mapping[str, str] = os.environ, others: Sequence[str] | None = None
) -> tuple[str, ...]:
    """A line if ``name`` is a SuperLink on this machine and other people can log in here: it runs their code, too.

    ``others``: names of accounts; default: those of this machine.
    """
    others = login_accounts() if others is None else others
    address = str(connections(variables)[name]["address"])
    if not others or address.rpartition(":")[0].strip("[]") not in _LOOPBACK:
        return ()
    who = ", ".join(others[:_NAMED]) + (" ..." if len(others) > _NAMED else "")
    return (
        f"--federation {name!r}: the SuperLink at {address} runs code for every account of this machine, and {who} can "
        "log in here; Flower 1.41 has no accounts to keep them out (docs/security.md)",
    )


def login_accounts() -> tuple[str, ...]:
    """Other people's accounts of this machine that have a shell, as far as the system lists them."""
    return tuple(
        account.pw_name
        for account in pwd.getpwall()
        if _FIRST_PERSON <= account.pw_uid < _NOBODY
        and account.pw_uid != os.getuid()
        and Path(account.pw_shell).name not in ("nologin", "false", "sync")
    )


class Federation:
    """The runtime of a run on real devices: a SuperLink by name. Leaving the context ends the app if it still runs."""

    def __init__(self, name: str, folder: Path, log: Path, variables: Mapping[str, str] | None = None) -> None:
        """``folder``: for the app's bundle and settings. ``log``: gets what the app printed, if it dies."""
        self._name = name
        self._folder = folder
        self._log = log
        self._flower = Flower(environment(variables or {}), name)
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

    def start(self, run: str, home: Path, nodes: int) -> None:
        """Submit the app that computes ``run``. Raises :class:`LaunchError`."""
        app = write_bundle(self._folder / "bundle")
        settings = {"slimfed": {"run": run, "home": str(home), "nodes": nodes, "real": True}}
        configuration = self._folder / "run.toml"
        configuration.write_text(tomli_w.dumps(settings))
        self._submission = self._flower.submit(app, configuration)

    def ailment(self) -> str | None:
        """Why the run can no longer end by itself; None while the SuperLink has it, or has not been asked of late."""
        now = time.monotonic()
        if self._submission is None or now < self._next_look:
            return None
        self._next_look = now + _LOOK_SECONDS
        try:
            self._status, self._missed = self._flower.status(self._submission), 0
            return self._post_mortem() if self._status.finished else None
        except LaunchError:
            self._missed += 1
        if self._missed < _LOOKS_MISSED:
            return None
        return f"the Flower SuperLink {self._name} did not answer {_LOOKS_MISSED} times in a row"

    def last_words(self) -> str:
        """The end of what the app has printed so far, in one line."""
        if self._submission is None:
            return "it was not submitted"
        try:
            text = self._flower.app_log(self._submission)
        except LaunchError as error:
            return str(error)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return " | ".join(lines[-_LINES:]) or "it printed nothing"

    def _post_mortem(self) -> str:
        assert self._submission is not None
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._log.write_text(self._flower.app_log(self._submission), encoding="utf-8")
        details = self._status.details
        if details in ("", "N/A"):
            details = "its process ended without a word, killed or out of memory"
        return f"the ServerApp ended before the run did: {details}"
