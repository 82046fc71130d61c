"""The devices of the newest round, and the history of one device."""

from typing import Any

import streamlit as st

from slimfed.dashboard import columns, format, widgets
from slimfed.dashboard.figures import curves, frames
from slimfed.dashboard.source import Source
from slimfed.platform.participation import asks_part

SHOWN = 1000

_COLUMNS = {
    "device": st.column_config.NumberColumn("Device", format="%d", pinned=True, width=70),
    "class": st.column_config.TextColumn("Class", width=130),
    "status": st.column_config.TextColumn("Status", width="small"),
    "sparsity": columns.number("Devices' sparsity", "Sparsity", width="small"),
    "rank": columns.number("Rank", width=70),
    "local_steps": columns.number("Local steps", width="small"),
    "seconds": columns.number("Completion", width="small"),
    "download": st.column_config.NumberColumn("Download", width="small"),
    "compute": st.column_config.NumberColumn("Compute", width="small"),
    "upload": st.column_config.NumberColumn("Upload", width="small"),
    "accuracy": columns.number("Devices' accuracy", "Own accuracy", width="small"),
    "examples": st.column_config.NumberColumn("Examples", width="small"),
}
_HISTORY = {
    "round": st.column_config.NumberColumn("Round", format="%d"),
    "status": st.column_config.TextColumn("Status"),
    "sparsity": columns.number("Devices' sparsity", "Sparsity"),
    "pruning_step": columns.number("Pruning step"),
    "rank": columns.number("Rank"),
    "local_steps": columns.number("Local steps"),
    "reward": columns.number("Reward"),
    "seconds": columns.number("Completion"),
    "accuracy": columns.number("Devices' accuracy", "Own accuracy"),
}


@st.fragment
def show(source: Source, run: Any) -> None:
    """A table, the slowest first; ticking a device shows its history."""
    with source.explained() as reader:
        frame = frames.devices_frame(reader.slowest_rows(run.id, SHOWN))
        names = frames.classes(frame)
        chosen = st.pills("Class", names, selection_mode="multi", key="classes", label_visibility="collapsed")
        frame = (frame[frame["class"].isin(chosen)] if chosen else frame).reset_index(drop=True)
        bounded = f" Of {run.devices:,} devices, those that took part in it." if asks_part(run.job) else ""
        bounded += f" The slowest {SHOWN:,} are shown." if run.devices > SHOWN else ""
        clock = "measured" if run.job.get("fleet", {}).get("clock") == "measured" else "virtual"
        st.caption(
            f"The newest round, slowest first; tick a device to see all its rounds. Completion time is download + "
            f"compute + upload, in {clock} seconds. Own accuracy is that of the device's own pruned model on the test "
            f"split; before the last round only a sample of the devices is measured.{bounded}"
        )
        choice = widgets.table(
            frame,
            f"devices of {run.id}",
            _COLUMNS,
            "Table of devices in the newest round, slowest first",
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
        widgets.table(
            frame.iloc[::-1],
            f"device {device} of {run.id}",
            _HISTORY,
            f"Table of the rounds of device {device}, newest first",
            whole=frame,
        )
