"""Words on when the rounds of a run close, and on the updates that come later, for the terminal and the dashboard."""

from collections.abc import Mapping
from typing import Any

from slimfed.platform.format import percent, plural


def waits_for_all(job: Mapping[str, Any]) -> bool:
    """True if every round waits for all devices that it asked, as in older versions. ``job``: as JSON values."""
    return bool(job.get("server", {}).get("mode", "sync") == "sync")


def rounds_close(job: Mapping[str, Any]) -> str:
    """When rounds close: ``rounds close with 10 updates``; empty if they wait for all. ``job``: as JSON values."""
    if waits_for_all(job):
        return ""
    server = job["server"]
    if server["mode"] == "buffered":
        return f"rounds close with {plural(server['buffer'], 'update')}"
    if server.get("close_seconds") is not None:
        return f"rounds close after {server['close_seconds']:g} virtual s"
    return f"rounds close at the agent's deadline, or when {percent(server['close_share'], 0)} are expected"
