"""The devices of the newest round, and the history of one device."""

from typing import Any

import streamlit as st

from slimfed.dashboard import format, widgets
from slimfed.dashboard.figures import curves, frames
from slimfed.dashboard.source import Source

SHOWN = 1000

_COLUMNS = {
    "device": st.column_config.NumberColumn("Device", format="%d", pinned=True, width=70),
    "class": st.column_config.TextColumn("Class", width=130),
    "status": st.column_config.TextColumn("Status", width="small"),
    "sparsity": st.column_config.NumberColumn("Sparsity", format="%.1f%%", width="small"),
    "rank": st.column_config.NumberColumn("Rank", format="%d", width=70),
    "local_steps": st.column_config.NumberColumn("Local steps", format="%d", width="small"),
    "seconds": st.column_config.NumberColumn("Completion (s)", format="%.2f", width="small"),
    "download": st.column_config.NumberColumn("Download (s)", format="%.2f", width="small"),
    "compute": st.column_config.NumberColumn("Compute (s)", format="%.2f", width="small"),
    "upload": st.column_config.NumberColumn("Upload (s)", format="%.2f", width="small"),
    "accuracy": st.column_config.NumberColumn("Own accuracy", format="%.1f%%", width="small"),
    "examples": st.column_config.NumberColumn("Examples", format="localized", width="small"),
}
_HISTORY = {
    "round": st.column_config.NumberColumn("Round", format="%d"),
    "status": st.column_config.TextColumn("Status"),
    "sparsity": st.column_config.NumberColumn("Sparsity", format="%.1f%%"),
    "pruning_step": st.column_config.NumberColumn("Pruning step", format="%.1f%%"),
    "rank": st.column_config.NumberColumn("Rank", format="%d"),
    "local_steps": st.column_config.NumberColumn("Local steps", format="%d"),
    "reward": st.column_config.NumberColumn("Reward", format="%.3f"),
    "seconds": st.column_config.NumberColumn("Completion (s)", format="%.2f"),
    "accuracy": st.column_config.NumberColumn("Own accuracy", format="%.1f%%"),
}


@st.fragment
def show(source: Source, run: Any) -> None:
    """A table, the slowest first; ticking a device shows its history."""
    with source.explained() as reader:
        frame = frames.devices_frame(reader.slowest_rows(run.id, SHOWN))
        names = frames.classes(frame)
        chosen = st.pills("Class", names, selection_mode="multi", key="classes", label_visibility="collapsed")
        frame = (frame[frame["class"].isin(chosen)] if chosen else frame).reset_index(drop=True)
        shown = frame.assign(sparsity=100 * frame["sparsity"], accuracy=100 * frame["accuracy"])
        bounded = f" The slowest {SHOWN:,} are shown." if run.devices > SHOWN else ""
        clock = "measured" if run.job.get("fleet", {}).get("clock") == "measured" else "virtual"
        st.caption(
            f"The newest round, slowest first; tick a device to see all its rounds. Completion time is download + "
            f"compute + upload, in {clock} seconds. Own accuracy is that of the device's own pruned model on the test "
            f"split; before the last round only a sample of the devices is measured.{bounded}"
        )
        choice = widgets.table(
            shown,
            f"devices of {run.id}",
            _COLUMNS,
            "Table of devices in the newest round, slowest first",
            whole=frame,
            on_select="rerun",
            selection_mode="single-row",
        )
        for row in choice.selection.rows:
            if row < len(frame):
                _history(source, run, int(frame["device"][row]), str(frame["class"][row]))


def _history(source: Source, run: Any, device: int, name: str) -> None:
    with source.explained() as reader:
        frame = frames.history_frame(reader.device_history(run.id, device))
        st.markdown(f"**Device {device}**, {format.plain(name)}")
        widgets.chart(
            None,
            curves.device_history(frame),
            f"Time of device {device} in each round, by phase.",
            key="history",
        )
        shares = {column: 100 * frame[column] for column in ("sparsity", "pruning_step", "accuracy")}
        widgets.table(
            frame.assign(**shares).iloc[::-1],
            f"device {device} of {run.id}",
            _HISTORY,
            f"Table of the rounds of device {device}, newest first",
            whole=frame,
        )
