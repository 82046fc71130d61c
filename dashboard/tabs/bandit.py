"""Pulls and mean rewards of the bandit, in boxes over pruning step and rank."""

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from slimfed.clients.errors import InputError
from slimfed.dashboard import format, widgets
from slimfed.dashboard.columns import number
from slimfed.dashboard.figures import bandit_boxes, curves, frames
from slimfed.dashboard.source import Source
from slimfed.platform.job.job import parse_job
from slimfed.platform.store.dashboard_reader import Insight
from slimfed.platform.store.rollups import STEPS
from slimfed.strategies.bandits import BANDITS, Arm, make_bandit
from slimfed.strategies.bandits.s_ucb import SUcb

EVERYBODY = "All devices"
ONE = "One device"
_MOST_ROWS = 60_000
"""Rows of assignments whose local steps are summed up."""
_RECENT = 3
"""Rounds that tell what the agent does now."""
_FEWEST_PULLS = 5
"""A box with fewer has a mean that tells little."""

_COLUMNS = {
    "low": number("Pruning step", "Pruning step from"),
    "high": st.column_config.NumberColumn("to"),
    "rank": st.column_config.TextColumn("Rank"),
    "pulls": st.column_config.NumberColumn("Pulls", format="%d"),
    "reward": number("Reward", "Mean reward"),
    "interval": st.column_config.NumberColumn("±", format="%.3f", help="Half of the 95% interval of the mean reward"),
}


@st.fragment
def show(source: Source, run: Any) -> None:
    """Local steps of each class, and the boxes of all devices, of a class or of one device."""
    with source.explained() as reader:
        if run.job["bandit"].get("local_steps"):
            _local_steps(reader, run)
        names = [row.profile for row in reader.class_sizes(run.id)]
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            whose = st.selectbox("Whose pulls", [EVERYBODY, *names, ONE], key="whose", width=260)
            device = (
                st.number_input("Device", 0, max(run.devices - 1, 0), 0, key="device", width=140) if whose == ONE else 0
            )
        if whose == ONE:
            frame, what = _of_device(reader, run, int(device))
        else:
            profile = None if whose == EVERYBODY else whose
            sums = reader.pulls(run.id, profile)
            frame = frames.with_intervals(frames.pulls_frame(sums, STEPS), sums)
            what = (
                f"Pulls of {'the whole fleet' if whose == EVERYBODY else f'class {whose}'} so far, in boxes of "
                f"{100 / STEPS:.1f}% of step and one rank."
            )
        if frame.empty or not frame["pulls"].sum():
            widgets.nothing("There are no rewarded pulls yet.")
            return
        st.markdown(settled(frame))
        if frame["high"].nunique() > 1:
            _boxes(run, frame, what)
        else:
            st.caption(f"{what} The schedule sets the pruning step, and the agent does not choose it.")
        boxes = frame.assign(rank=[", ".join(map(str, ranks)) for ranks in frame["ranks"]]).drop(columns="ranks")
        boxes = boxes.sort_values("reward", ascending=False)[[name for name in _COLUMNS if name in boxes.columns]]
        widgets.table(
            boxes,
            f"pulls of {run.id}",
            _COLUMNS,
            "Table of boxes, the best rewarded first",
        )


def _boxes(run: Any, frame: pd.DataFrame, what: str) -> None:
    ranks = sorted({*run.job["bandit"]["ranks"], *(rank for box in frame["ranks"] for rank in box)})
    widgets.chart(
        None,
        bandit_boxes.boxes(frame, ranks),
        f"{what} The colour is the mean reward, the number the pulls, and a box of few pulls is faint; a reward is "
        "what a device learnt in a time like the others'. Brighter is better.",
        key="boxes",
    )


def _local_steps(reader: Insight, run: Any) -> None:
    """What the agent gives the classes to do in a round."""
    after = max(run.rounds_done - max(_MOST_ROWS // max(run.devices, 1), 5), 0)
    frame = frames.local_steps_frame(reader.local_steps(run.id, after))
    if frame.empty:
        return
    st.markdown(steps_in_words(frame))
    widgets.chart(
        "Local steps of each class",
        curves.local_steps(frame),
        "Optimiser steps that the agent gives a device in a round: the mean of each class, and the band from its least "
        "to its most. Faster devices take more, so that all are done at about the same time.",
    )


def steps_in_words(frame: pd.DataFrame) -> str:
    """What the agent has settled on in the newest rounds, by class."""
    recent = frame[frame["round"] > frame["round"].max() - _RECENT]
    parts = []
    for name, rows in recent.groupby("class", sort=False):
        mean = float((rows["mean"] * rows["devices"]).sum() / rows["devices"].sum())
        parts.append((mean, f"{format.plain(str(name))} {mean:.0f}"))
    said = ", ".join(text for _, text in sorted(parts, reverse=True))
    last = int(frame["round"].max())
    number = f"rounds {int(recent['round'].min())} to {last}" if recent["round"].nunique() > 1 else f"round {last}"
    changes = frame.groupby("round")["mean"].mean().diff().abs().tail(_RECENT)
    settled = len(changes.dropna()) >= _RECENT and bool((changes < 1).all())
    tail = " They have hardly changed lately." if settled else ""
    return f"**In {number} the agent gives** on average {said} local steps a round.{tail}"


def settled(frame: pd.DataFrame) -> str:
    """What the agent pulls most and what is rewarded best, with how sure that is."""
    tried = frame[frame["pulls"] > 0]
    by_step = tried["high"].nunique() > 1
    most = tried.loc[tried["pulls"].idxmax()]
    share = most["pulls"] / tried["pulls"].sum()
    text = f"**Pulled most**: {_box(most, by_step)}, {format.percent(share, 0)} of {int(tried['pulls'].sum()):,} pulls."
    if len(tried) < 2:
        return text
    often = tried[tried["pulls"] >= min(_FEWEST_PULLS, tried["pulls"].max())]
    best = often.loc[often["reward"].idxmax()]
    half = best.get("interval", np.nan)
    sure = "" if np.isnan(half) else f" ± {half:.3f}"
    text += f" **Rewarded best** of the boxes with enough pulls: {_box(best, by_step)}, {best['reward']:.3f}{sure}"
    if np.isnan(half) or best.name == most.name:
        return f"{text}."
    apart = best["reward"] - most["reward"] > np.hypot(half, most["interval"])
    return f"{text}, {'more' if apart else 'not distinguishably more'} than the one pulled most."


def _box(row: Any, by_step: bool) -> str:
    ranks = ", ".join(map(str, row["ranks"]))
    if not by_step:
        return f"rank {ranks}"
    return f"step {100 * row['low']:.1f} to {100 * row['high']:.1f}%, rank {ranks}"


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
