"""Pulls and mean rewards of the bandit, in boxes over pruning step and rank."""

from typing import Any

import pandas as pd
import streamlit as st

from slimfed.clients.errors import InputError
from slimfed.dashboard import format, widgets
from slimfed.dashboard.columns import number
from slimfed.dashboard.figures import bandit_boxes, frames
from slimfed.dashboard.source import Source
from slimfed.platform.job.job import parse_job
from slimfed.platform.store.dashboard_reader import Insight
from slimfed.platform.store.rollups import STEPS
from slimfed.strategies.bandits import BANDITS, Arm, make_bandit
from slimfed.strategies.bandits.s_ucb import SUcb

EVERYBODY = "All devices"
ONE = "One device"

_COLUMNS = {
    "low": number("Pruning step", "Pruning step from"),
    "high": st.column_config.NumberColumn("to"),
    "rank": st.column_config.TextColumn("Rank"),
    "pulls": st.column_config.NumberColumn("Pulls", format="%d"),
    "reward": number("Reward", "Mean reward"),
}


@st.fragment
def show(source: Source, run: Any) -> None:
    """The boxes of all devices, of a class or of one device."""
    with source.explained() as reader:
        names = [row.profile for row in reader.class_sizes(run.id)]
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            whose = st.selectbox("Whose pulls", [EVERYBODY, *names, ONE], key="whose", width=260)
            device = (
                st.number_input("Device", 0, max(run.devices - 1, 0), 0, key="device", width=140) if whose == ONE else 0
            )
        if whose == ONE:
            frame, what = _of_device(reader, run, int(device))
        else:
            frame = frames.pulls_frame(reader.pulls(run.id, None if whose == EVERYBODY else whose), STEPS)
            what = (
                f"Pulls of {'the whole fleet' if whose == EVERYBODY else f'class {whose}'} so far, in boxes of "
                f"{100 / STEPS:.1f}% of step and one rank."
            )
        if frame.empty or not frame["pulls"].sum():
            widgets.nothing("There are no rewarded pulls yet.")
            return
        ranks = sorted({*run.job["bandit"]["ranks"], *(rank for box in frame["ranks"] for rank in box)})
        widgets.chart(
            None,
            bandit_boxes.boxes(frame, ranks),
            f"{what} The colour is the mean reward, the number the pulls; a reward is what a device learnt in a time "
            "like the others'. Brighter is better.",
            key="boxes",
        )
        boxes = frame.assign(rank=[", ".join(map(str, ranks)) for ranks in frame["ranks"]]).drop(columns="ranks")
        boxes = boxes.sort_values("reward", ascending=False)[list(_COLUMNS)]
        widgets.table(
            boxes,
            f"pulls of {run.id}",
            _COLUMNS,
            "Table of boxes, the best rewarded first",
        )


def _of_device(reader: Insight, run: Any, device: int) -> tuple[pd.DataFrame, str]:
    """The boxes of one device: those of its agent's partition, or else one box for each pull."""
    pulls = [row for row in reader.device_history(run.id, device) if row.reward is not None]
    count = format.plural(len(pulls), "pull")
    agent = _grown(run, pulls)
    if agent is not None:
        frame = frames.leaves_frame(agent.leaves(), agent.spec.ranks)
        return frame, f"The boxes of device {device}'s agent after {count}; grey boxes were never pulled."
    rows = [
        {"rank": row.rank, "step": round(row.pruning_step * STEPS), "pulls": 1, "reward": row.reward} for row in pulls
    ]
    sums = pd.DataFrame(rows, columns=["rank", "step", "pulls", "reward"]).groupby(["rank", "step"]).sum().reset_index()
    return frames.pulls_frame(sums.to_dict("records"), STEPS), f"The {count} of device {device}."


def _grown(run: Any, pulls: list[Any]) -> SUcb | None:
    """The agent rebuilt from its pulls, which determine its boxes. None for a bandit without boxes."""
    try:
        spec = parse_job(run.job).bandit
    except InputError:  # a job of another version, or with an agent that is not installed here
        return None
    if not issubclass(BANDITS[spec.name], SUcb):
        return None
    agent = make_bandit(spec, 0)
    assert isinstance(agent, SUcb)
    if any(row.rank not in spec.ranks for row in pulls):
        return None
    for row in pulls:
        agent.observe(row.round, Arm(row.pruning_step, row.rank), row.reward)
    return agent
