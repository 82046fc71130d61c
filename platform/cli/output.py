"""Output of the command line: results to standard output, everything else to standard error."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from slimfed.clients.plain_text import clean
from slimfed.platform.console import PlainConsole
from slimfed.platform.format import percent


def results() -> PlainConsole:
    """Console for results; 200 columns wide if the output is piped, so that no table cell is truncated."""
    return PlainConsole(width=None if sys.stdout.isatty() else 200)


def print_json(value: Any) -> None:
    """Print a result as JSON to standard output."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def print_table(title: str, columns: Mapping[str, str], rows: Sequence[Mapping[str, str]]) -> None:
    """Print rows as a table. ``columns`` maps a key to its heading; a heading that ends in ``>`` is right-aligned."""
    table = Table(title=title, title_justify="left")
    for heading in columns.values():
        table.add_column(heading.removesuffix(">"), justify="right" if heading.endswith(">") else "left")
    for row in rows:
        table.add_row(*(clean(row.get(key, "")) for key in columns))
    results().print(table)


def describe_measures(measures: Mapping[str, float | None]) -> str:
    """The measures in one line: losses and perplexity as numbers, shares as per cent. Missing ones are left out."""
    plain = ("loss", "perplexity", "bits_per_byte")
    known = {name: value for name, value in measures.items() if value is not None}
    return ", ".join(
        f"{name.replace('_', ' ')} {value:.3f}" if name in plain else f"{name.replace('_', ' ')} {percent(value)}"
        for name, value in known.items()
    )
