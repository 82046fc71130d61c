"""Runs as cards: what a phone shows in place of the table. No Streamlit here."""

from collections.abc import Mapping
from datetime import tzinfo
from html import escape
from typing import Any

import pandas as pd

from slimfed.clients.plain_text import clean
from slimfed.dashboard import format

_NAME = 120
_COLORS = {
    "queued": "#8250df",
    "preparing": "#6e7781",
    "running": "#0072B2",
    "stopping": "#b35900",
    "done": "#00785a",
    "failed": "#c4310a",
    "stopped": "#b35900",
}


def cards(frame: pd.DataFrame, zone: tzinfo) -> str:
    """A card for each line of :func:`frames.runs_frame`: HTML whose links lead to the runs' pages."""
    return "".join(_card(row, zone) for row in frame.to_dict("records"))


def _card(row: Mapping[str, Any], zone: tzinfo) -> str:
    name = f"{row['sweep']}: {row['name']}" if row["sweep"] else str(row["name"])
    state = str(row["status"])
    facts = (
        f"round {row['rounds_done']} of {row['rounds']}",
        f"devices' sparsity {format.percent(row['sparsity'])}",
        format.seconds(row["virtual_seconds"]),
        str(row["method"]),
        format.clock(row["started_at"], zone),
    )
    return (
        f'<a class="run-card" href="run?run={escape(str(row["id"]), quote=True)}">'
        f'<span class="run-card-name">{escape(clean(name, _NAME))}</span>'
        f'<span class="run-card-figure">{escape(format.percent(row["accuracy"]))}</span>'
        f'<span class="run-card-state" style="--state:{_COLORS.get(state, "#6e7781")}">'
        f"{escape(format.status(state))}</span>"
        f'<span class="run-card-facts">{" · ".join(f"<span>{escape(clean(fact))}</span>" for fact in facts)}</span></a>'
    )
