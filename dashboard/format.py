"""States, times and text as the pages write them. Numbers are those of ``slimfed.platform.format``."""

import html
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo

from slimfed.clients.plain_text import clean
from slimfed.platform.format import (
    NOTHING,
    energy,
    fits,
    missing,
    percent,
    plural,
    points,
    ratio,
    roughly,
    sampled,
    seconds,
    size,
)

Written = Callable[[float | None], str]
"""How a number is written."""

STATUS_COLORS = {
    "queued": "violet",
    "preparing": "gray",
    "running": "blue",
    "stopping": "orange",
    "done": "green",
    "failed": "red",
    "stopped": "orange",
}
STATUS_SIGNS = {
    "queued": "…",
    "preparing": "○",
    "running": "▶",
    "stopping": "◧",
    "done": "✓",
    "failed": "✕",
    "stopped": "■",
}
UNFINISHED = ("queued", "created", "running")
SILENCE_SECONDS = 600.0
"""Seconds without heartbeat after which a running job's process is probably gone."""


def local(moment: datetime | None, zone: tzinfo = UTC) -> datetime | None:
    """A stored time in the reader's zone. SQLite stores UTC without a zone."""
    if moment is None or missing(moment):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(zone)


def clock(moment: datetime | None, zone: tzinfo = UTC) -> str:
    """A stored time as ``2025-11-02 14:05``, in the reader's zone."""
    there = local(moment, zone)
    return NOTHING if there is None else there.strftime("%Y-%m-%d %H:%M")


def silent_for(heartbeat: datetime | None, now: datetime) -> float | None:
    """Seconds since a running job's last heartbeat, if longer than :data:`SILENCE_SECONDS`."""
    heard = local(heartbeat)
    if heard is None:
        return None
    quiet = (now - heard).total_seconds()
    return quiet if quiet > SILENCE_SECONDS else None


def plain(text: str) -> str:
    """Text in one line, with Markdown's special characters escaped."""
    return "".join(f"\\{sign}" if sign in r"\`*_{}[]()<>#+-.!|~$:&=" else sign for sign in clean(text, 20_000))


def code(text: str) -> str:
    """Text that can stand between two backticks."""
    return clean(text.replace("`", "'"))


def figure(text: str) -> str:
    """Text for a legend or a label of a figure, where plotly reads a few HTML tags, and ``%{...}`` as a value."""
    return html.escape(clean(text, 200), quote=False).replace("%{", "% {")


def status(name: str) -> str:
    """The state of a run with a sign that needs no colour: ``✓ done``."""
    return f"{STATUS_SIGNS.get(name, '·')} {name}"


__all__ = [
    "NOTHING",
    "SILENCE_SECONDS",
    "STATUS_COLORS",
    "STATUS_SIGNS",
    "UNFINISHED",
    "clock",
    "code",
    "energy",
    "figure",
    "fits",
    "local",
    "missing",
    "percent",
    "plain",
    "plural",
    "points",
    "ratio",
    "roughly",
    "sampled",
    "seconds",
    "silent_for",
    "size",
    "status",
]
