"""The time of the last rounds by phase, one bar for each device."""

from typing import Any

import pandas as pd
import streamlit as st

from slimfed.dashboard import format, widgets
from slimfed.dashboard.columns import number
from slimfed.dashboard.figures import bars, frames
from slimfed.dashboard.source import Source

ROUNDS = (1, 2, 3, 5)
BARS = 36
"""Number of bars on a screen, divided among the rounds."""

_COLUMNS = {
    "round": st.column_config.NumberColumn("Round", format="%d"),
    "device": st.column_config.NumberColumn("Device", format="%d"),
    "class": st.column_config.TextColumn("Class"),
    "status": st.column_config.TextColumn("Status"),
    "download": st.column_config.NumberColumn("Download"),
    "compute": st.column_config.NumberColumn("Compute"),
    "upload": st.column_config.NumberColumn("Upload"),
    "idle": st.column_config.NumberColumn("Idle"),
    "seconds": number("Completion"),
}


@st.fragment
def show(source: Source, run: Any) -> None:
    """The slowest devices of the last rounds."""
    with source.explained() as reader:
        choice = st.segmented_control(
            "Last rounds",
            ROUNDS,
            default=2,
            required=True,
            key="last",
            format_func=lambda n: "Last round" if n == 1 else f"Last {n} rounds",
            label_visibility="collapsed",
        )
        count = choice or 2
        most = max(BARS // count, 6)
        frame = frames.timeline_frame(reader.late_devices(run.id, count, most))
        timed = frame[frame["seconds"].notna()]
        if timed.empty:
            widgets.nothing("No device of these rounds has a completion time. The Events tab says why.")
            return
        some = f" Of the devices that took part, the {most} slowest of each round." if run.devices > most else ""
        clock = "measured" if run.job.get("fleet", {}).get("clock") == "measured" else "virtual"
        st.markdown(where_time_goes(timed))
        widgets.chart(
            None,
            bars.timeline(timed),
            f"How each device spent a round, in {clock} time. Idle is waiting for the slowest device, whose bar has "
            f"no idle part.{some}",
            key="timeline",
        )
        widgets.table(
            frame, f"timeline of {run.id}", _COLUMNS, f"Table of the slowest devices of {format.plural(count, 'round')}"
        )


def where_time_goes(frame: pd.DataFrame) -> str:
    """Who is the last of the newest round and with what, and how much the others wait; ``frame``: shown devices."""
    newest = frame[frame["round"] == frame["round"].max()]
    last = newest.loc[newest["seconds"].idxmax()]
    parts = {part: float(last[part]) for part in ("download", "compute", "upload")}
    longest = max(parts, key=lambda part: parts[part])
    word = {"download": "downloading", "compute": "computing", "upload": "uploading"}[longest]
    text = (
        f"Round {int(last['round'])} took {format.seconds(last['round_seconds'])}: its last device was "
        f"{int(last['device'])} ({format.plain(last['class'])}), {format.percent(parts[longest] / last['seconds'], 0)} "
        f"of its time {word}."
    )
    others = newest.drop(last.name)
    if others.empty or not last["round_seconds"]:
        return text
    waited = float((others["idle"] / others["round_seconds"]).mean())
    return f"{text} The other devices below waited {format.percent(waited, 0)} of the round on average."
