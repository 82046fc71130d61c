"""Formatting of numbers for pages and the terminal."""

from dataclasses import dataclass

NOTHING = "–"


def missing(value: object) -> bool:
    """True for None, NaN and NaT."""
    return value is None or value != value


def percent(share: float | None, digits: int = 1) -> str:
    """A share in [0, 1] as a percentage."""
    return NOTHING if share is None or missing(share) else f"{100 * share:.{digits}f}%"


def sampled(examples: float | None, test_examples: float | None) -> str:
    """``on 500 of 1,821 test texts`` for a figure of a sample; empty for one of all, or if that is not known."""
    known = None not in (examples, test_examples) and not missing(examples) and not missing(test_examples)
    if not known or examples == test_examples:
        return ""
    return f"on {examples:,.0f} of {test_examples:,.0f} test texts"


def points(change: float | None) -> str | None:
    """A change of a share in percentage points, ``+1.3 points``; None where there is none to speak of."""
    if change is None or missing(change) or abs(change) < 0.0005:
        return None
    return f"{100 * change:+.1f} points"


def points_between(share: float, other: float) -> str:
    """How far a share is from another, in percentage points: ``31.0 over``, ``7.5 below``, ``level with``."""
    difference = 100 * (share - other)
    if abs(difference) < 0.05:
        return "level with"
    return f"{abs(difference):.1f} {'over' if difference > 0 else 'below'}"


def seconds(value: float | None) -> str:
    """A duration in its two largest units: 0.42 s, 12.3 s, 3 min 12 s, 2 h 05 min, 3 d 4 h."""
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


def ratio(value: float | None) -> str:
    """A plain number of three figures: a perplexity, a ratio. 5.83, 41.2, 1,284."""
    if value is None or missing(value):
        return NOTHING
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def roughly(value: float) -> str:
    """An estimated duration in one unit, or two from an hour: 45 s, 3 min, 2 h 05 min, 3 d 4 h."""
    if value < 59.5:
        return f"{max(round(value), 1)} s"
    return f"{round(value / 60)} min" if value < 3570 else seconds(60 * round(value / 60))


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


def fits(starts_at: float | None) -> str:
    """Whether training fits the devices of a class; ``starts_at``: see ``launch.estimate.ClassEstimate``."""
    if starts_at is None:
        return "no: every round is lost for want of memory"
    return "yes" if starts_at == 0.0 else f"from {percent(starts_at, 0)} sparsity on, where it starts"


def energy(joules: float | None) -> str:
    """Joules: 812 J, 3.4 kJ, 1.2 MJ."""
    if joules is None or missing(joules):
        return NOTHING
    joules = float(joules)
    for unit in ("J", "kJ", "MJ"):
        if joules < 1000:
            return f"{joules:.0f} J" if unit == "J" else f"{joules:.1f} {unit}"
        joules /= 1000
    return f"{joules:.1f} GJ"


@dataclass(frozen=True)
class TimeUnit:
    """Unit of a time axis."""

    name: str
    seconds: float


TIME_UNITS = (TimeUnit("s", 1.0), TimeUnit("min", 60.0), TimeUnit("h", 3600.0), TimeUnit("days", 86400.0))


def time_unit(longest: float) -> TimeUnit:
    """The largest unit of which ``longest`` seconds are at least two."""
    return next((unit for unit in reversed(TIME_UNITS) if longest >= 2 * unit.seconds), TIME_UNITS[0])
