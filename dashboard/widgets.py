"""Widgets of all pages: charts with a caption, tables with download buttons, remarks on missing data."""

import io
import re
from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from slimfed.dashboard import columns as written_columns
from slimfed.dashboard import format
from slimfed.dashboard.csv_file import csv_file

Picture = Literal["png", "svg"]

PICTURE = "picture"
_ROW = 35
_MOST_ROWS = 10
_MOST_WRITTEN = 10_000
"""Rows of a table whose numbers are written by slimfed: more take seconds."""


def chart(title: str | None, figure: go.Figure, sentence: str, key: str | None = None) -> None:
    """A figure, its title, and a sentence on what it shows. Its toolbar saves it in the format that was chosen."""
    if title:
        st.markdown(f"**{title}**")
    picture = {"format": st.session_state.get(PICTURE) or "png", "filename": slug(title or sentence), "scale": 2}
    config = {
        "displaylogo": False,
        "displayModeBar": "hover",
        "scrollZoom": False,
        "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d", "pan2d", "zoom2d"],
        "toImageButtonOptions": picture,
    }
    st.plotly_chart(figure, width="stretch", config=config, key=key or title or sentence, alt=sentence)
    st.caption(sentence)


def picture_choice() -> None:
    """A control for the file format of saved charts."""
    st.segmented_control(
        "Charts are saved as",
        ["png", "svg"],
        default="png",
        required=True,
        key=PICTURE,
        format_func=str.upper,
        persist_state="session",
        help="Format for the camera button of charts.",
    )


def table(
    frame: pd.DataFrame,
    name: str,
    columns: Mapping[str, Any],
    alt: str,
    whole: pd.DataFrame | None = None,
    numbers: Mapping[str, written_columns.Written] | None = None,
    **more: Any,
) -> Any:
    """A table with download buttons below, its numbers as ``columns.written`` has them.

    ``whole``: the frame to save, if other than the shown one. ``numbers``: columns that are written in another way.
    """
    answer = st.dataframe(
        written_columns.written(frame, numbers) if len(frame) <= _MOST_WRITTEN else frame,
        key=name,
        hide_index=True,
        width="stretch",
        height=38 + _ROW * min(max(len(frame), 1), _MOST_ROWS),
        column_config=dict(columns),
        column_order=[column for column in columns if column in frame.columns] or None,
        placeholder=format.NOTHING,
        alt=alt,
        **more,
    )
    saving(frame if whole is None else whole, name)
    return answer


def saving(frame: pd.DataFrame, name: str) -> None:
    """Download buttons for the frame as CSV and Parquet; the files are made when a button is pressed."""
    file = slug(name)
    with st.container(horizontal=True, gap="small"):
        for label, ending, mime, made in (
            ("CSV", "csv", "text/csv", lambda: csv_file(frame)),
            ("Parquet", "parquet", "application/vnd.apache.parquet", lambda: parquet(frame)),
        ):
            st.download_button(
                label,
                made,
                f"{file}.{ending}",
                mime,
                key=f"save {name} {ending}",
                icon=":material/download:",
                type="tertiary",
                on_click="ignore",
                help=f"Save this table as {label}",
            )


def parquet(frame: pd.DataFrame) -> bytes:
    """The frame as a Parquet file."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def slug(text: str) -> str:
    """A file name from the words of a title."""
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))[:60] or "slimfed"


def nothing(text: str) -> None:
    """A remark on why there is no content yet, and when there will be."""
    st.info(text, icon=":material/hourglass_empty:")
