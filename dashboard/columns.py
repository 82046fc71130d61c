"""Columns of tables: their headings with the glossary's help, and how their numbers are written.

Cells are written by the formatter of the command line; what is sorted and saved are the numbers themselves.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import streamlit as st
from pandas.api.types import is_numeric_dtype
from pandas.io.formats.style import Styler

from slimfed.dashboard import format
from slimfed.platform.glossary import meaning

Written = Callable[[Any], str]


def loss(value: float | None) -> str:
    """A loss in nats, with three decimals."""
    return format.NOTHING if value is None or format.missing(value) else f"{value:.3f}"


def count(value: float | None) -> str:
    """A whole number."""
    return format.NOTHING if value is None or format.missing(value) else f"{value:,.0f}"


def megabytes(value: float | None) -> str:
    """Megabytes as bytes are written."""
    return format.size(None if value is None else 1e6 * value)


def rounds_late(value: float | None) -> str:
    """A mean number of rounds, with two decimals."""
    return format.NOTHING if value is None or format.missing(value) else f"{value:.2f}"


def times(value: float | None) -> str:
    """A ratio: ``1.25×``."""
    return format.NOTHING if value is None or format.missing(value) else f"{value:.2f}×"


_WRITTEN: Mapping[str, Written] = {
    **dict.fromkeys(("accuracy", "device_accuracy_mean", "final", "best"), format.percent),
    **dict.fromkeys(("sparsity", "global_sparsity", "pruning_step", "low", "high", "share"), format.percent),
    **dict.fromkeys(("virtual_seconds", "wall_seconds"), format.seconds),
    **dict.fromkeys(("seconds", "download", "compute", "upload", "idle"), format.seconds),
    **dict.fromkeys(("loss", "train_loss", "reward"), loss),
    **dict.fromkeys(("examples", "rank", "local_steps", "accepted", "rejected", "round", "device", "devices"), count),
    **dict.fromkeys(("asked", "available", "late", "in_flight"), count),
    "megabytes": megabytes,
    **dict.fromkeys(("bytes_up", "bytes_down", "peak_memory_bytes"), format.size),
    "joules": format.energy,
    "slower": times,
    "staleness": rounds_late,
}
"""How the numbers of a column are written, by the column's name; the same in every table."""


def number(term: str, heading: str | None = None, **more: Any) -> Any:
    """A column of numbers whose ``heading`` is explained by the glossary's ``term``."""
    return st.column_config.NumberColumn(heading or term, help=meaning(term), **more)


def written(frame: pd.DataFrame, numbers: Mapping[str, Written] | None = None) -> Styler:
    """The frame with its numbers as they are shown; ``numbers``: columns that are written in another way."""
    every = {**_WRITTEN, **(numbers or {})}
    known = {name: every[name] for name in frame.columns if name in every and is_numeric_dtype(frame[name])}
    return frame.style.format(known, na_rep="")
