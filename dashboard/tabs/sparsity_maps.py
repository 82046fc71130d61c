"""Maps of sparsity and rank by device and round."""

from typing import Any

import streamlit as st

from slimfed.dashboard import format, widgets
from slimfed.dashboard.figures import frames, heat_maps
from slimfed.dashboard.source import Source
from slimfed.platform.participation import asks_part

ROWS = ("Devices", "Classes")


@st.fragment
def show(source: Source, run: Any) -> None:
    """Two maps; a row is a device, or a whole class."""
    with source.explained() as reader:
        rows = st.segmented_control(
            "Rows", ROWS, default="Devices", required=True, key="rows", label_visibility="collapsed"
        )
        if rows == "Classes":
            frame = frames.class_rounds_frame(reader.class_rounds(run.id))
            names = [row.profile for row in reader.class_sizes(run.id)]
            sparsity = frames.class_grid(frame, "sparsity", names)
            rank = frames.class_grid(frame, "rank", names)
            who, note = "each class, on average,", ""
        else:
            cells = reader.heat_map(run.id)
            sparsity, rank = frames.grid(cells, cells.sparsity), frames.grid(cells, cells.rank)
            who = "each device"
            note = (
                f" Shown: {len(sparsity)} of {format.plural(run.devices, 'device')}, picked evenly within each class"
                f"{' of those that took part' if asks_part(run.job) else ''}."
                if len(sparsity) < run.devices
                else ""
            )
        if sparsity.isna().any(axis=None):
            note += " Gaps are rounds in which nobody of the row took part."
        left, right = st.columns(2, gap="large")
        with left:
            widgets.chart(
                "Sparsity",
                heat_maps.sparsity_map(sparsity, run.target_sparsity),
                f"Share of the model that {who} has removed by the end of each round.{note}",
            )
        with right:
            widgets.chart(
                "Rank",
                heat_maps.rank_map(rank) if rows != "Classes" else heat_maps.mean_rank_map(rank),
                f"Rank of the adapter that {who} trained in each round.{note}",
            )
        flat = sparsity.stack().rename("sparsity").reset_index()
        flat["rank"] = rank.stack().to_numpy() if rank.shape == sparsity.shape else None
        flat = flat.dropna(subset="sparsity")
        with st.expander("The maps as a table"):
            columns = {
                "class": st.column_config.TextColumn("Class"),
                "device": st.column_config.TextColumn("Device"),
                "round": st.column_config.NumberColumn("Round", format="%d"),
                "sparsity": st.column_config.NumberColumn("Sparsity", format="percent"),
                "rank": st.column_config.NumberColumn("Rank", format="%.1f"),
            }
            widgets.table(flat.astype({"device": str}), f"maps of {run.id}", columns, "Table of sparsity and rank")
