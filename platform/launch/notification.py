"""A word to somebody when a run has ended: a POST to an address, or a command.

Both are named by the environment of who starts runs, not by job files: a job file runs no code, and the address of a
webhook is a secret.
"""

import json
import logging
import os
import shlex
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from slimfed.clients.errors import InputError
from slimfed.platform.format import percent
from slimfed.platform.launch.child_environment import child_environment
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store
from slimfed.platform.summary import run_summaries
from slimfed.strategies.protocols import Event

WEBHOOK, COMMAND, WHEN = "SLIMFED_NOTIFY_WEBHOOK", "SLIMFED_NOTIFY_COMMAND", "SLIMFED_NOTIFY_ON"
SECONDS = 15.0
"""Longest wait for an address or a command."""

_log = logging.getLogger(__name__)


def check_notification(environment: Mapping[str, str] = os.environ) -> None:
    """Raise ``InputError`` for a setting that cannot be used; called before a run starts."""
    when = environment.get(WHEN) or "end"
    if when not in ("end", "failure"):
        raise InputError(f"{WHEN} = {when!r}: must be end or failure")
    address = environment.get(WEBHOOK)
    if address and (urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname):
        raise InputError(f"{WEBHOOK}: must be an address that begins with http:// or https://")
    try:
        shlex.split(environment.get(COMMAND) or "")
    except ValueError as error:
        raise InputError(f"{COMMAND} = {environment[COMMAND]!r}: is no command ({error})") from None


def notify(store: Store, run_id: str, environment: Mapping[str, str] = os.environ) -> None:
    """Tell whoever the environment names that a run has ended; nothing for one that goes on.

    A failure is an event of the run, and changes nothing else. Returns within half a minute.
    """
    address, command = environment.get(WEBHOOK), environment.get(COMMAND)
    if not address and not command:
        return
    reader = Reader(store.engine)
    run = reader.find_run(run_id)
    wanted = ("failed",) if environment.get(WHEN) == "failure" else ("done", "failed", "stopped")
    if run.status not in wanted:
        return
    told = {"text": in_words(run), "name": run.name, "cause": run.cause}
    told |= run_summaries([run], reader, store.address)[0]
    for name, send, target in ((WEBHOOK, _post, address), (COMMAND, _run, command)):
        problem = send(target, told) if target else None
        if problem is not None:
            _log.warning("%s: %s", name, problem)
            store.add_event(run_id, Event(run.rounds_done, "not-notified", f"{name}: {problem}", f"check {name}"))


def in_words(run: Any) -> str:
    """Such as ``slimfed: demo is done, accuracy 87.3% after 12 of 12 rounds``; ``run``: a row of the store."""
    quality = f", accuracy {percent(run.accuracy)}" if run.accuracy is not None else ""
    state = {"done": "is done", "failed": "has failed", "stopped": "was stopped"}[run.status]
    cause = f": {run.cause}" if run.status == "failed" and run.cause else ""
    return f"slimfed: {run.name} {state}{quality} after {run.rounds_done} of {run.rounds} rounds{cause}"


def _post(address: str, told: Mapping[str, Any]) -> str | None:
    """Send JSON; returns what went wrong, without the address, which is a secret."""
    request = urllib.request.Request(
        address, json.dumps(told).encode(), {"Content-Type": "application/json", "User-Agent": "slimfed"}
    )
    try:
        with urllib.request.urlopen(request, timeout=SECONDS):
            return None
    except urllib.error.HTTPError as error:
        return f"was answered with {error.code} {error.reason}"
    except (OSError, ValueError) as error:
        return f"cannot be reached ({getattr(error, 'reason', None) or type(error).__name__})"


def _run(command: str, told: Mapping[str, Any]) -> str | None:
    """Run a command with the JSON as its input, without a shell; returns what went wrong."""
    try:
        done = subprocess.run(
            shlex.split(command),
            input=json.dumps(told),
            env=child_environment(),
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"took longer than {SECONDS:.0f} s and was ended"
    except (OSError, ValueError) as error:
        return f"cannot be run ({getattr(error, 'strerror', None) or error})"
    if done.returncode:
        return f"ended with code {done.returncode}: {done.stderr.strip()[-300:]}"
    return None
