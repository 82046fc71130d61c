"""Numbers and states as a reader meets them: one way to write each, everywhere on the screen."""

from datetime import UTC, datetime, tzinfo

import pandas as pd

NOTHING = "–"

STATUS_COLORS = {
    "queued": "violet",
    "created": "gray",
    "running": "blue",
    "done": "green",
    "failed": "red",
    "stopped": "orange",
}
STATUS_SIGNS = {"queued": "…", "created": "○", "running": "▶", "done": "✓", "failed": "✕", "stopped": "■"}
UNFINISHED = ("queued", "created", "running")
SILENCE_SECONDS = 600.0
"""A running job that has not been heard of for this long has probably lost its process."""


def missing(value: object) -> bool:
    """True for None and for NaN, which is how pandas writes None."""
    return value is None or bool(pd.isna(value))


def percent(share: float | None, digits: int = 1) -> str:
    """A share in [0, 1] as a percentage."""
    return NOTHING if share is None or missing(share) else f"{100 * share:.{digits}f}%"


def points(change: float | None) -> str | None:
    """A change of a share in percentage points, ``+1.3 points``; None where there is none to speak of."""
    if change is None or missing(change) or abs(change) < 0.0005:
        return None
    return f"{100 * change:+.1f} points"


def seconds(value: float | None) -> str:
    """A duration in the two largest units that matter: 0.42 s, 12.3 s, 3 min 12 s, 2 h 05 min, 3 d 4 h."""
    if value is None or missing(value):
        return NOTHING
    if value < 59.95:
        return f"{value:.1f} s" if value >= 0.95 else f"{value:.2f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(value / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(value / 3600)
    return f"{hours // 24} d {hours % 24} h"


def size(count: float | None) -> str:
    """Bytes in decimal units: 912 B, 3.4 MB, 1.2 GB."""
    if count is None or missing(count):
        return NOTHING
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"


def plural(count: int, noun: str) -> str:
    """``1 round``, ``2 rounds``, ``10,000 devices``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def local(moment: datetime | None, zone: tzinfo = UTC) -> datetime | None:
    """A stored time in the reader's zone. SQLite drops the zone of what it stores; what it stores is UTC."""
    if moment is None or missing(moment):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(zone)


def clock(moment: datetime | None, zone: tzinfo = UTC) -> str:
    """A stored time as ``2025-11-02 14:05``, in the reader's zone."""
    there = local(moment, zone)
    return NOTHING if there is None else there.strftime("%Y-%m-%d %H:%M")


def silent_for(heartbeat: datetime | None, now: datetime) -> float | None:
    """Seconds since a running job was last heard of, if that is longer than :data:`SILENCE_SECONDS`."""
    heard = local(heartbeat)
    if heard is None:
        return None
    quiet = (now - heard).total_seconds()
    return quiet if quiet > SILENCE_SECONDS else None


def plain(text: str) -> str:
    """Text as it is, with whatever Markdown would read as a command escaped."""
    return "".join(f"\\{sign}" if sign in r"\`*_{}[]()<>#+-.!|~$:" else sign for sign in text)


def code(text: str) -> str:
    """Text that can stand between two backticks."""
    return text.replace("`", "'").replace("\n", " ")


def status(name: str) -> str:
    """The state of a run with a sign that needs no colour: ``✓ done``."""
    return f"{STATUS_SIGNS.get(name, '·')} {name}"
