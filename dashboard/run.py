"""The page of one run, live while the run goes on.

A small fragment asks the store every two seconds for one row and draws the headline. Only when a round or an event
was added does it have the rest drawn again, and once the run has ended it asks no more.
"""

from datetime import UTC, datetime
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
import tomli_w
from sqlalchemy import Row

from slimfed.clients.errors import InputError
from slimfed.dashboard import charts, reading, words
from slimfed.dashboard.source import Source
from slimfed.platform.store.queries import Pulse, Reader

Run = Row[Any]

REFRESH_SECONDS = 2.0
DEVICE_ROWS = 1000
EVENTS_SHOWN = 5
EVENTS_KEPT = 200
METRIC_WIDTH = 138

_PLAIN_CHART = {"displayModeBar": False, "scrollZoom": False}
_AXES: dict[str, charts.Axis] = {"Rounds": "round", "Virtual time": "time"}

_DEVICE_COLUMNS = {
    "device": st.column_config.NumberColumn("Device", format="%d", pinned=True, width=70),
    "class": st.column_config.TextColumn("Class", width=130),
    "status": st.column_config.TextColumn("Status", width="small"),
    "sparsity": st.column_config.NumberColumn("Sparsity", format="%.1f%%", width="small"),
    "rank": st.column_config.NumberColumn("Rank", format="%d", width=70),
    "seconds": st.column_config.NumberColumn("Completion (s)", format="%.2f", width="small"),
    "download": st.column_config.NumberColumn("Download (s)", format="%.2f", width="small"),
    "compute": st.column_config.NumberColumn("Compute (s)", format="%.2f", width="small"),
    "upload": st.column_config.NumberColumn("Upload (s)", format="%.2f", width="small"),
    "accuracy": st.column_config.NumberColumn("Own accuracy", format="%.1f%%", width="small"),
    "examples": st.column_config.NumberColumn("Examples", format="localized", width="small"),
}


def show(source: Source, run_id: str) -> None:
    """The page of the run that the address names."""
    with source.explained() as reader:
        run = _found(reader, run_id)
        if run is None:
            return
        going = run.status in words.UNFINISHED
        seen = reader.pulse(run.id)
        st.set_page_config(page_title=f"{words.status(run.status)} {run.rounds_done}/{run.rounds} · {run.name}")
        _title(run, source)
        st.fragment(_headline, run_every=REFRESH_SECONDS if going else None)(source, run.id, seen)
        if run.rounds_done:
            _learning(source, run)
            _maps(source, run)
            _devices(source, run)
            _slowest(source, run)
        _events(source, run)
        _job(run)


def _found(reader: Reader, run_id: str) -> Run | None:
    """The run that the address names by its id, the beginning of it or ``last``; otherwise says what is wrong."""
    try:
        return reader.find_run(run_id)
    except InputError as error:
        st.subheader("This address leads to no run.", anchor=False)
        st.markdown(f"{words.plain(str(error))}.")
        return None


def _title(run: Run, source: Source) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.title(words.plain(run.name), width="content", anchor=False)
        st.badge(run.status, color=words.STATUS_COLORS.get(run.status, "gray"))
    facts = (
        run.method,
        words.plural(run.devices, "device"),
        f"target sparsity {words.percent(run.target_sparsity, 0)}",
        f"seed {run.seed}",
        f"started {words.clock(run.started_at or run.created_at, source.zone)}",
    )
    st.caption(f"{words.plain(' · '.join(facts))} · `{words.code(run.id)}`")


def _headline(source: Source, run_id: str, seen: Pulse | None) -> None:
    """Progress and the newest figures. Has the page redrawn if the store knows more than ``seen``."""
    with source.explained() as reader:
        if reader.pulse(run_id) != seen:
            st.rerun()
        run = reader.find_run(run_id)
        _progress(run, _rounds(reader, run_id))
        _notice(run)
        with st.container(horizontal=True, gap="small"):
            for label, value, meaning in _figures(run):
                st.metric(label, value, help=meaning, width=METRIC_WIDTH)


def _progress(run: Run, rounds: pd.DataFrame) -> None:
    text = f"Round {run.rounds_done} of {run.rounds}"
    left = reading.remaining_seconds(rounds, run.rounds)
    if run.status == "running" and left is not None:
        text += f" · about {words.seconds(left)} left"
    elif run.status in words.UNFINISHED:
        text += " · the first round is under way" if run.status == "running" else " · preparing"
    st.progress(min(run.rounds_done / run.rounds, 1.0), text=text)


def _notice(run: Run) -> None:
    """What the reader should know about a run that is not simply going or done, and what to do."""
    resume = f"Continue it where it was with `slimfed resume {words.code(run.id)}`."
    if run.status == "failed":
        st.error(f"The run failed: {words.plain(run.cause or 'no cause was recorded')}  \n{resume}")
    elif run.status == "stopped":
        st.info(f"The run was stopped after {words.plural(run.rounds_done, 'round')}. {resume}")
    elif run.status == "running" and run.stop_requested:
        st.info("The run has been asked to stop and will do so soon.")
    elif run.status == "running" and (quiet := words.silent_for(run.heartbeat_at, datetime.now(UTC))) is not None:
        st.warning(f"Nothing was heard of this run for {words.seconds(quiet)}. If its process is gone: {resume}")


def _figures(run: Run) -> tuple[tuple[str, str, str], ...]:
    return (
        ("Accuracy", words.percent(run.accuracy), "Pruned global model on the test split, after the newest round"),
        (
            "Devices' accuracy",
            words.percent(run.device_accuracy_mean),
            "Mean over the devices' own pruned models on the test split",
        ),
        (
            "Sparsity",
            words.percent(run.sparsity),
            "Share of the prunable parameters that has been removed, mean over devices",
        ),
        ("Virtual time", words.seconds(run.virtual_seconds), "Simulated time of all rounds on the fleet's devices"),
        ("Wall time", words.seconds(run.wall_seconds), "Real time of all rounds on this computer"),
        (
            "Received",
            words.size(run.bytes_up),
            f"Bytes from the devices to the server; {words.size(run.bytes_down)} went down to them",
        ),
        ("Rejected updates", f"{run.rejected_updates:,}", "Updates that were kept out of the average; see the events"),
    )


@st.fragment
def _learning(source: Source, run: Run) -> None:
    with source.explained() as reader:
        rounds = _rounds(reader, run.id)
        st.subheader("Learning", anchor=False)
        choice = st.segmented_control(
            "Horizontal axis", list(_AXES), default="Rounds", required=True, key="axis", label_visibility="collapsed"
        )
        axis = _AXES[choice or "Rounds"]
        counted = "next tokens" if run.job.get("model", {}).get("task") == "causal-lm" else "test examples"
        for column, (title, figure, sentence) in zip(
            st.columns(2, gap="large"),
            (
                (
                    "Accuracy",
                    charts.accuracy(rounds, axis, counted),
                    "The pruned global model on the test split, and the mean of the devices' own pruned models.",
                ),
                (
                    "Loss",
                    charts.loss(rounds, axis),
                    "Of the global model on the test split, and of the devices on their own text. Lower is better.",
                ),
            ),
            strict=True,
        ):
            with column:
                _chart(title, figure, sentence)


def _rounds(reader: Reader, run_id: str) -> pd.DataFrame:
    return reading.rounds_frame(reader.rounds(run_id), reader.evaluations(run_id))


def _maps(source: Source, run: Run) -> None:
    with source.explained() as reader:
        cells = reader.heat_map(run.id)
        sparsity, rank = reading.grid(cells, cells.sparsity), reading.grid(cells, cells.rank)
        sampled = (
            f" Shown: {len(sparsity)} of {run.devices:,} devices, picked evenly within each class."
            if len(sparsity) < run.devices
            else ""
        )
        st.subheader("Sparsity and rank", anchor=False)
        left, right = st.columns(2, gap="large")
        with left:
            _chart(
                "Sparsity of every device",
                charts.sparsity_map(sparsity, run.target_sparsity),
                f"Share of the model that each device has removed by the end of each round.{sampled}",
            )
        with right:
            _chart(
                "Rank of every device",
                charts.rank_map(rank),
                f"Rank of the adapter that each device trained in each round.{sampled}",
            )


@st.fragment
def _devices(source: Source, run: Run) -> None:
    with source.explained() as reader:
        st.subheader("Devices", anchor=False)
        frame = reading.devices_frame(reader.slowest_rows(run.id, DEVICE_ROWS))
        names = reading.classes(frame)
        chosen = st.pills("Class", names, selection_mode="multi", key="classes", label_visibility="collapsed")
        shown = (frame[frame["class"].isin(chosen)] if chosen else frame).assign(
            sparsity=lambda f: 100 * f["sparsity"], accuracy=lambda f: 100 * f["accuracy"]
        )
        st.dataframe(
            shown,
            key="devices",
            hide_index=True,
            width="stretch",
            height=min(38 + 35 * max(len(shown), 1), 388),
            column_config=_DEVICE_COLUMNS,
            placeholder=words.NOTHING,
            alt="Table of devices in the newest round, slowest first",
        )
        bounded = f" The slowest {DEVICE_ROWS:,} are shown." if run.devices > DEVICE_ROWS else ""
        clock = "measured" if run.job.get("fleet", {}).get("clock") == "measured" else "virtual"
        st.caption(
            f"The newest round, slowest first. Completion time is download + compute + upload, in {clock} seconds. Own "
            "accuracy is that of the device's own pruned model on the test split; before the last round only a sample "
            f"of the devices is measured.{bounded}"
        )


def _slowest(source: Source, run: Run) -> None:
    with source.explained() as reader:
        frame = reading.slowest_frame(reader.slowest_devices(run.id))
        if frame.empty:
            return
        st.subheader("The slowest device of each round", anchor=False)
        _chart(
            None,
            charts.slowest(frame, reading.classes(frame)),
            "A round lasts as long as its slowest device. The bar is how long the round waited for it, its colour the "
            "device's class, and the number above it the device.",
        )


def _events(source: Source, run: Run) -> None:
    with source.explained() as reader:
        st.subheader("Events", anchor=False)
        counts = reader.event_counts(run.id)
        if not counts:
            st.caption("Nothing to report: no update was rejected and no device was lost.")
            return
        frame = reading.events_frame(reader.events(run.id, EVENTS_KEPT), source.zone)
        st.caption(f"{words.plain(reading.tally(counts))}. The newest come first.")
        for row in frame.head(EVENTS_SHOWN).itertuples():
            where = f"Round {row.round}" + ("" if pd.isna(row.device) else f", device {row.device}")
            st.markdown(
                f"**{where}: {words.plain(row.kind)}.** {words.plain(row.cause)}  \n:gray[{words.plain(row.remedy)}]"
            )
        if len(frame) > EVENTS_SHOWN:
            with st.expander(f"The newest {len(frame):,} events as a table"):
                st.dataframe(frame, hide_index=True, width="stretch", key="events", placeholder=words.NOTHING)


def _job(run: Run) -> None:
    st.subheader("Job", anchor=False)
    with st.expander("The job as it was resolved, with every default; save it as a file to run it again"):
        st.code(tomli_w.dumps(reading.without_nothing(run.job)), language="toml")


def _chart(title: str | None, figure: go.Figure, sentence: str) -> None:
    if title:
        st.markdown(f"**{title}**")
    st.plotly_chart(figure, width="stretch", config=_PLAIN_CHART, key=title or sentence, alt=sentence)
    st.caption(sentence)
