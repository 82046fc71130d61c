"""What the command line prints: results to standard output, everything else to standard error."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

OK = 0
FAILED = 1
BAD_INPUT = 2


def results() -> Console:
    """Console for results. Wide when nobody looks, so that no cell of a piped table is cut."""
    return Console(width=None if sys.stdout.isatty() else 200, highlight=False)


def notes() -> Console:
    """Console for progress and remarks."""
    return Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """A result as JSON, alone on standard output."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def print_table(title: str, columns: Mapping[str, str], rows: Sequence[Mapping[str, str]]) -> None:
    """Rows as a table; ``columns`` maps a key to its heading, a heading ending in ``>`` is right-aligned."""
    table = Table(title=title, title_justify="left")
    for heading in columns.values():
        table.add_column(heading.removesuffix(">"), justify="right" if heading.endswith(">") else "left")
    for row in rows:
        table.add_row(*(row.get(key, "") for key in columns))
    results().print(table)


def percent(value: float | None) -> str:
    """0.8421 -> 84.2%."""
    return "-" if value is None else f"{100 * value:.1f}%"


def duration(seconds: float | None) -> str:
    """Seconds as people say them: 8.3 s, 4 min 12 s, 3 h 07 min."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def size(count: float | None) -> str:
    """Bytes as people say them: 812 B, 3.4 MB."""
    if count is None:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def energy(joules: float | None) -> str:
    """Joules as people say them: 812 J, 3.4 kJ, 1.2 MJ."""
    if joules is None:
        return "-"
    for unit in ("J", "kJ", "MJ"):
        if joules < 1000:
            return f"{joules:.0f} J" if unit == "J" else f"{joules:.1f} {unit}"
        joules /= 1000
    return f"{joules:.1f} GJ"


def describe_measures(measures: Mapping[str, float | None]) -> str:
    """What was measured beside the accuracy, in one line; losses and perplexity as numbers, shares as percents."""
    plain = ("loss", "perplexity")
    known = {name: value for name, value in measures.items() if value is not None}
    return ", ".join(
        f"{name.replace('_', ' ')} {value:.3f}" if name in plain else f"{name.replace('_', ' ')} {percent(value)}"
        for name, value in known.items()
    )
