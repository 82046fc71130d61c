"""Heads and channels of every layer, and the share of devices that keep them."""

from typing import Any

import pandas as pd
import streamlit as st

from slimfed.dashboard import widgets
from slimfed.dashboard.figures import frames, structure_chart
from slimfed.dashboard.source import Source

_KINDS = (("attention", "Attention heads", "Head"), ("ffn", "FFN channels", "Channels, in equal stretches"))
_COLUMNS = {
    "layer": st.column_config.NumberColumn("Layer", format="%d"),
    "kind": st.column_config.TextColumn("Kind"),
    "units": st.column_config.NumberColumn("Units", format="%d", help="Heads (or KV groups), or channels"),
    "kept": st.column_config.NumberColumn("Kept, mean of the devices", format="%.1f"),
    "share": st.column_config.NumberColumn("Kept"),
}


def show(source: Source, run: Any) -> None:
    """Two maps and a table."""
    with source.explained() as reader:
        frame = frames.blocks_frame(reader.blocks(run.id))
        if frame.empty:
            widgets.nothing("This run was recorded before slimfed kept its structure; runs made from now on show it.")
            return
        for column, (kind, title, unit) in zip(st.columns(2, gap="large"), _KINDS, strict=True):
            rows = frame[frame["kind"] == kind]
            if rows.empty:
                continue
            with column:
                widgets.chart(title, structure_chart.structure(rows, unit), _sentence(kind, rows))
        table = frame.assign(share=frame["kept"] / frame["units"]).drop(columns="shares")
        widgets.table(table, f"structure of {run.id}", _COLUMNS, "Table of blocks, in forward order")


def _sentence(kind: str, rows: pd.DataFrame) -> str:
    units, most = int(rows["units"].max()), max(len(shares) for shares in rows["shares"])
    thing = "heads (a head is removed with its keys and values where queries share them)" if kind == "attention" else ""
    if kind == "ffn":
        each = round(units / most)
        thing = f"channels of the feed-forward blocks ({each} to a column)" if each > 1 else "channels"
    return f"Which {thing} the devices of the newest round still have after it: yellow is kept by all, blue by none."
