"""The list of runs: what there is, how it went, and a way into each."""

from collections.abc import Callable

import pandas as pd
import streamlit as st

from slimfed.dashboard import reading, words
from slimfed.dashboard.source import Source

REFRESH_SECONDS = 5.0
SHOWN = 500
TABLE = "runs"
SHOWN_IDS = "runs on the screen"

_COLUMNS = {
    "name": st.column_config.TextColumn("Run", width=150),
    "status": st.column_config.TextColumn("Status", width="small"),
    "method": st.column_config.TextColumn("Method", width="small"),
    "rounds_done": st.column_config.NumberColumn("Rounds", help="Rounds done", format="%d", width=66),
    "rounds": st.column_config.NumberColumn("Of", help="Rounds planned", format="%d", width=42),
    "accuracy": st.column_config.NumberColumn(
        "Accuracy", help="Pruned global model on the test split", format="%.1f%%", width="small"
    ),
    "device_accuracy_mean": st.column_config.NumberColumn(
        "Devices' own", help="Mean accuracy of the devices' own pruned models", format="%.1f%%", width=96
    ),
    "sparsity": st.column_config.NumberColumn(
        "Sparsity", help="Share of the prunable parameters removed, mean over devices", format="%.1f%%", width="small"
    ),
    "virtual_seconds": st.column_config.NumberColumn(
        "Virtual time (s)", help="Simulated seconds of all rounds", format="%.1f", width=110
    ),
    "wall_seconds": st.column_config.NumberColumn(
        "Wall time (s)", help="Real seconds of all rounds", format="%.1f", width=92
    ),
    "started_at": st.column_config.DatetimeColumn("Started", format="YYYY-MM-DD HH:mm", width=132),
    "id": st.column_config.TextColumn("Id", help="What the commands of slimfed call this run"),
}


def show(source: Source, open_run: Callable[[str], None]) -> None:
    """The page. ``open_run`` leads to the page of one run."""
    st.title("Runs")
    _listing(source, open_run)


@st.fragment(run_every=REFRESH_SECONDS)
def _listing(source: Source, open_run: Callable[[str], None]) -> None:
    if source.missing:
        _greet(source)
        return
    with source.explained() as reader:
        rows = reader.runs(SHOWN)
        if not rows:
            _greet(source)
            return
        frame = _presented(reading.runs_frame(rows, source.zone))
        _caption(len(frame))
        # A row number in the reader's choice means the rows that were on the screen, not those just read.
        on_screen: list[str] = st.session_state.get(SHOWN_IDS, list(frame["id"]))
        st.session_state[SHOWN_IDS] = list(frame["id"])
        choice = st.dataframe(
            frame,
            key=TABLE,
            hide_index=True,
            width="stretch",
            height="content" if len(frame) <= 15 else 560,
            column_order=list(_COLUMNS),
            column_config=_COLUMNS,
            on_select="rerun",
            selection_mode="single-cell",
            placeholder=words.NOTHING,
            alt="Table of runs, newest first",
        )
        for row, _ in choice.selection.cells:
            if row < len(on_screen):
                open_run(on_screen[row])


def _presented(frame: pd.DataFrame) -> pd.DataFrame:
    shares = {column: 100 * frame[column] for column in ("accuracy", "device_accuracy_mean", "sparsity")}
    return frame.assign(**shares, status=[words.status(status) for status in frame["status"]])


def _caption(count: int) -> None:
    which = f"the newest {count:,} runs" if count >= SHOWN else words.plural(count, "run")
    st.caption(f"{which[0].upper()}{which[1:]}, newest first. Select one to open it; a heading sorts by it.")


def _greet(source: Source) -> None:
    st.subheader("Welcome to slimfed. There is no run here yet.")
    st.markdown("Start the built-in job, 80 unequal devices that tune and slim a small language model together:")
    st.code("slimfed run", language="bash")
    st.markdown("It will appear on this page by itself within a few seconds.")
    st.caption(f"This page reads the store `{words.code(source.address)}`.")
    st.caption("If your runs are kept elsewhere, set `SLIMFED_HOME` or `SLIMFED_STORE` and start the dashboard again.")
