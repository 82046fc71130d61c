"""Traffic, energy and memory of each round."""

from typing import Any

import streamlit as st

from slimfed.dashboard import columns, format, widgets
from slimfed.dashboard.figures import cost_bars, frames
from slimfed.dashboard.source import Source

_COLUMNS = {
    "round": st.column_config.NumberColumn("Round", format="%d"),
    "bytes_down": columns.number("Sent"),
    "bytes_up": columns.number("Received"),
    "joules": columns.number("Energy"),
    "peak_memory_bytes": columns.number("Peak memory"),
    "virtual_seconds": columns.number("Virtual time"),
    "wall_seconds": columns.number("Wall time"),
}


def show(source: Source, run: Any) -> None:
    """A chart for each cost, and the rounds as a table."""
    with source.explained() as reader:
        frame = frames.costs_frame(reader.rounds(run.id))
        st.caption(_sentence(run, frame))
        left, right = st.columns(2, gap="large")
        with left:
            widgets.chart(
                "Traffic",
                cost_bars.traffic(frame),
                "Bytes that the server sent to the devices and received from them in each round.",
            )
        with right:
            if frame["joules"].notna().any():
                widgets.chart(
                    "Energy",
                    cost_bars.energy(frame),
                    "Estimated energy of all devices in each round, waiting for the slowest included.",
                )
            else:
                widgets.nothing("The fleet's profile has no watts, so that energy is not known.")
        left, right = st.columns(2, gap="large")
        with left:
            if frame["peak_memory_bytes"].notna().any():
                widgets.chart(
                    "Peak memory",
                    cost_bars.memory(frame),
                    "The most that training needed on one device in each round. It falls as the models are pruned.",
                )
        with right:
            widgets.chart(
                "Wall time",
                cost_bars.wall_time(frame),
                "Real time of each round on the computer that runs it, evaluation included.",
            )
        with st.expander("The rounds as a table"):
            widgets.table(frame.iloc[::-1], f"costs of {run.id}", _COLUMNS, "Table of costs, newest round first")


def _sentence(run: Any, frame: Any) -> str:
    """What a round costs at the end against the beginning."""
    first, last = frame.iloc[0], frame.iloc[-1]
    each = (last["bytes_up"] + last["bytes_down"]) / max(run.devices, 1)
    text = f"The last round moved {format.size(each)} for each device"
    if len(frame) > 1:
        text += f" ({format.size((first['bytes_up'] + first['bytes_down']) / max(run.devices, 1))} in the first)"
    if not format.missing(last["joules"]):
        text += f" and took {format.energy(last['joules'] / max(run.devices, 1))}"
    return f"{text}."
