"""The list of runs with their figures, links, tags and notes."""

from collections.abc import Callable

import pandas as pd
import streamlit as st

from slimfed.dashboard import columns, format, run_control, widgets
from slimfed.dashboard.figures import frames
from slimfed.dashboard.source import Source
from slimfed.dashboard.views import now, run_cards
from slimfed.platform.home import other_homes

REFRESH_SECONDS = 5.0
SHOWN = 2000
MOST_COMPARED = 8
CARDS = 50
"""Runs that a phone shows, as cards in place of the table."""

_COLUMNS = {
    "name": st.column_config.TextColumn("Run", width=148, help="Select it to open the run"),
    "status": st.column_config.TextColumn("Status", width=92),
    "accuracy": columns.number("Accuracy", width=78),
    "course": st.column_config.LineChartColumn(
        "0 to 100%", help="Accuracy of the global model over the rounds", width=84, y_min=0.0, y_max=1.0
    ),
    "progress": st.column_config.TextColumn("Rounds", help="Rounds done, of those planned", width=66),
    "sweep": st.column_config.TextColumn("Sweep", help="Its runs differ in the fields in their names", width=110),
    "method": st.column_config.TextColumn("Method", width=84),
    "device_accuracy_mean": columns.number("Devices' accuracy", width=112),
    "sparsity": columns.number("Devices' sparsity", width=110),
    "virtual_seconds": columns.number("Virtual time", width=86),
    "wall_seconds": columns.number("Wall time", width=86),
    "started_at": st.column_config.DatetimeColumn("Started", format="YYYY-MM-DD HH:mm", width=128),
    "devices": st.column_config.NumberColumn("Devices", width=68),
    "tags": st.column_config.ListColumn("Tags", width=120),
    "notes": st.column_config.TextColumn("Notes", width=180),
    "id": st.column_config.TextColumn("Id", help="Id of the run for the commands of slimfed"),
}
_SHORT = 22
_LONG_NAME = st.column_config.TextColumn("Run", width=270, help="Select it to open the run")
_IF_ANY = ("sweep", "tags", "notes")
"""Columns that are shown if any run has them."""


def show(source: Source, open_run: Callable[[str], None], open_compare: Callable[[list[str]], None]) -> None:
    """The page. ``open_run`` leads to the page of one run, ``open_compare`` to that of several."""
    st.title("Runs", anchor=False)
    st.fragment(_listing, run_every=REFRESH_SECONDS)(source, open_run, open_compare)


def _listing(source: Source, open_run: Callable[[str], None], open_compare: Callable[[list[str]], None]) -> None:
    if source.missing:
        _greet(source)
        return
    with source.explained() as reader:
        rows = reader.runs(SHOWN)
        if not rows:
            _greet(source)
            return
        waiting = run_control.see_to_the_queue(source, reader)
        progress = reader.progress([row.id for row in rows if row.status == "running"])
        now.show(source, reader, rows, progress, open_run)
        every = frames.runs_frame(rows, source.zone, progress)
        frame = _filtered(every)
        _caption(len(frame), len(every), waiting)
        if frame.empty:
            st.info("No run matches. Clear the search, or choose other states.", icon=":material/search_off:")
            return
        with st.container(key="cards"):
            st.html(run_cards.cards(frame.head(CARDS), source.zone))
        with st.container(key="runs-table"):
            _table(source, frame, open_run, open_compare)


def _filtered(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs that match search and states; the search is also in the address."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        sought = st.text_input(
            "Search",
            key="q",
            bind="query-params",
            placeholder="Search name, id, method, tag or note",
            label_visibility="collapsed",
            icon=":material/search:",
            live=True,
            width=320,
        )
        states = [state for state in format.STATUS_COLORS if (frame["status"] == state).any()]
        chosen = st.pills(
            "Status",
            states,
            selection_mode="multi",
            format_func=format.status,
            key="states",
            label_visibility="collapsed",
        )
        archived = st.toggle("Archived", key="archived", help="Show the archived runs instead")
    frame = frame[frame["archived"].astype(bool) == archived]
    if chosen:
        frame = frame[frame["status"].isin(chosen)]
    text = frame["sweep"] + " " + frame["name"] + " " + frame["id"] + " " + frame["method"] + " " + frame["notes"]
    text += " " + frame["tags"].map(" ".join)
    for word in (sought or "").lower().split():
        frame = frame[text.loc[frame.index].str.lower().str.contains(word, regex=False)]
    return frame.reset_index(drop=True)


def _table(
    source: Source, frame: pd.DataFrame, open_run: Callable[[str], None], open_compare: Callable[[list[str]], None]
) -> None:
    actions = st.container()
    shown = _presented(frame)
    # A selection refers to rows of the shown table, so another list of runs needs another table.
    choice = st.dataframe(
        columns.written(shown),
        key=f"runs {hash(tuple(frame['id']))}",
        hide_index=True,
        width="stretch",
        height="content" if len(frame) <= 12 else 520,
        column_order=[
            name for name in _COLUMNS if name not in ("sweep", "tags", "notes") or shown[name].map(len).any()
        ],
        column_config=_COLUMNS | ({"name": _LONG_NAME} if frame["name"].map(len).max() > _SHORT else {}),
        on_select="rerun",
        selection_mode=["multi-row", "single-cell"],
        placeholder=format.NOTHING,
        alt="Table of runs, newest first",
    )
    widgets.saving(frame.drop(columns=["course"]).assign(tags=frame["tags"].map(", ".join)), "runs")
    for row, _ in choice.selection.cells:
        open_run(str(frame["id"][row]))
    with actions:
        _actions(source, frame.iloc[list(choice.selection.rows)], bool(frame["archived"].all()), open_compare)


def _actions(source: Source, frame: pd.DataFrame, archived: bool, open_compare: Callable[[list[str]], None]) -> None:
    """Actions on the ticked runs. Always shown, so that the table does not move when a run is ticked."""
    ids = [str(run_id) for run_id in frame["id"]]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if st.button(
            "Compare",
            icon=":material/compare_arrows:",
            disabled=not 2 <= len(ids) <= MOST_COMPARED,
            help=f"Tick two to {MOST_COMPARED} runs to compare them",
        ):
            open_compare(ids)
        if not source.operator:
            return
        if st.button("Restore" if archived else "Archive", icon=":material/archive:", disabled=not ids):
            run_control.label(source, ids, archived=not archived)
            st.rerun(scope="fragment")
        with st.popover("Tags and notes", icon=":material/label:", disabled=not ids):
            if ids:
                labels(source, ids, sorted(set().union(*frame["tags"])), str(frame["notes"].iloc[0]), f"of {ids[0]}")


def labels(source: Source, ids: list[str], tags: list[str], notes: str, key: str) -> None:
    """A form for tags and a note on runs."""
    with st.form(f"labels {key}", border=False):
        given = st.text_input("Tags, separated by commas", ", ".join(tags), placeholder="paper, table 2")
        noted = st.text_area("Notes", notes, placeholder="What was tried, and the result")
        if st.form_submit_button("Save", type="primary"):
            tags = [tag.strip() for tag in given.split(",") if tag.strip()]
            run_control.label(source, ids, tags=tags, notes=noted.strip())
            st.rerun()


def _presented(frame: pd.DataFrame) -> pd.DataFrame:
    progress = [f"{done}/{planned}" for done, planned in zip(frame["rounds_done"], frame["rounds"], strict=True)]
    return frame.assign(status=[format.status(status) for status in frame["status"]], progress=progress)


def _caption(count: int, of: int, waiting: int) -> None:
    which = format.plural(of, "run") if count == of else f"{count:,} of {format.plural(of, 'run')}"
    queue = f" {format.plural(waiting, 'run')} in the queue of this computer." if waiting else ""
    with st.container(horizontal=True, gap="xxsmall", key="listed"):
        st.caption(f"{which}, newest first.{queue}", width="content")
        with st.container(key="listed-hint", width="content"):
            st.caption(
                "Select a cell to open its run, tick runs to compare, tag or archive them; a heading sorts by it."
            )


def _greet(source: Source) -> None:
    st.subheader("Welcome to slimfed. There is no run here yet.", anchor=False)
    st.markdown("Start the built-in job, 80 unequal devices that tune and prune a small language model together:")
    st.code("slimfed run", language="bash")
    st.markdown("Or fill in a form: press **Launch** at the top. The run appears here within a few seconds.")
    st.caption(f"This page reads the store `{format.code(source.address)}`.")
    others = other_homes(source.home)
    there = f" There are runs in {format.plain(', '.join(map(str, others)))}." if others else ""
    st.caption(
        f"If your runs are kept elsewhere, set `SLIMFED_HOME` or `SLIMFED_STORE` and start the dashboard again.{there}"
    )
