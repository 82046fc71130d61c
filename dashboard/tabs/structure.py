"""Heads and channels of every layer, and the share of devices that keep them."""

from typing import Any

import pandas as pd
import streamlit as st

from slimfed.dashboard import format, widgets
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
        present = [each for each in _KINDS if (frame["kind"] == each[0]).any()]
        st.markdown(kept_in_words(frame))
        for column, (kind, title, unit) in zip(st.columns(len(present), gap="large"), present, strict=True):
            rows = frame[frame["kind"] == kind]
            with column:
                widgets.chart(title, structure_chart.structure(rows, unit), _sentence(kind, rows))
        table = frame.assign(share=frame["kept"] / frame["units"]).drop(columns="shares")
        widgets.table(table, f"structure of {run.id}", _COLUMNS, "Table of blocks, in forward order")


def kept_in_words(frame: pd.DataFrame) -> str:
    """How much of each kind is left, and the layer that has lost most."""
    parts = []
    for kind, word in (("attention", "attention heads"), ("ffn", "FFN channels")):
        rows = frame[frame["kind"] == kind]
        if len(rows):
            share = rows["kept"].sum() / rows["units"].sum()
            parts.append(f"{rows['kept'].sum():,.0f} of {rows['units'].sum():,} {word} ({format.percent(share, 0)})")
    text = f"Devices keep on average {' and '.join(parts)}."
    shares = frame.groupby("layer")[["kept", "units"]].sum()
    left = shares["kept"] / shares["units"]
    if len(left) > 1 and left.max() - left.min() > 0.005:
        text += f" Layer {left.idxmin()} has lost most, layer {left.idxmax()} least."
    return text


def _sentence(kind: str, rows: pd.DataFrame) -> str:
    units, most = int(rows["units"].max()), max(len(shares) for shares in rows["shares"])
    thing = "heads (a head is removed with its keys and values where queries share them)" if kind == "attention" else ""
    if kind == "ffn":
        each = round(units / most)
        thing = f"channels of the feed-forward blocks ({each} to a column)" if each > 1 else "channels"
    return f"Which {thing} the devices of the newest round still have after it: yellow is kept by all, blue by none."
