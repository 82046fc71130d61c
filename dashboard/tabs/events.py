"""Events: rejected updates, dropouts, repeated rounds, with cause and remedy."""

from typing import Any

import pandas as pd
import streamlit as st

from slimfed.dashboard import format, widgets
from slimfed.dashboard.figures import bars, frames
from slimfed.dashboard.source import Source

TOLD = 3
KEPT = 500

_COLUMNS = {
    "round": st.column_config.NumberColumn("Round", format="%d", width=64),
    "device": st.column_config.NumberColumn("Device", format="%d", width=70),
    "kind": st.column_config.TextColumn("Kind", width=110),
    "cause": st.column_config.TextColumn("Cause", width=380),
    "remedy": st.column_config.TextColumn("What to do", width=380),
    "at": st.column_config.TextColumn("Recorded", width=130),
}


@st.fragment
def show(source: Source, run: Any) -> None:
    """A chart of events by kind and round, the newest events as text, and a table."""
    with source.explained() as reader:
        counts = reader.event_counts(run.id)
        if not counts:
            st.success("Nothing to report: no update was rejected and no device was lost.", icon=":material/check:")
            return
        widgets.chart(
            None,
            bars.events(frames.event_rounds_frame(reader.event_rounds(run.id))),
            f"Events of each round: {frames.tally(counts)}.",
            key="events by round",
        )
        frame = frames.events_frame(reader.events(run.id, KEPT), source.zone)
        for row in frame.head(TOLD).itertuples():
            where = f"Round {row.round}" + ("" if pd.isna(row.device) else f", device {row.device}")
            st.markdown(
                f"**{where}: {format.plain(row.kind)}.** {format.plain(row.cause)}  \n:gray[{format.plain(row.remedy)}]"
            )
        kinds = st.pills("Kind", sorted(counts), selection_mode="multi", key="kinds", label_visibility="collapsed")
        shown = frame[frame["kind"].isin(kinds)] if kinds else frame
        widgets.table(shown, f"events of {run.id}", _COLUMNS, "Table of events, newest first")
        if sum(counts.values()) > KEPT:
            st.caption(f"The newest {KEPT:,} of {sum(counts.values()):,} events.")
