"""Common style of figures: colours, axes with their units, sizes.

Colours are told apart under every common colour blindness: Okabe and Ito's set for things that have names
(https://jfly.uni-koeln.de/color/), cividis and viridis for amounts. Every axis says its unit. Figures take tidy frames;
nothing here reads the store or uses Streamlit.
"""

import re
from collections.abc import Sequence
from typing import Literal

import pandas as pd
import plotly.graph_objects as go

from slimfed.platform.format import time_unit

Axis = Literal["round", "time", "bytes"]

BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"

CLASS_COLORS = (SKY, ORANGE, GREEN, PURPLE, VERMILLION, BLUE)

CLASS_PATTERNS = ("", "/", ".", "x")

LINE_HEIGHT = 320

BAR_WIDTH = 0.75


MARKERS_UP_TO = 60
RUN_COLORS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, "#8C8C8C", "#6A3D00")
RUN_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "solid", "dash", "dot")
RUN_SIGNS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "star", "hexagon")
LABELS_UP_TO = 30
PARTS = (
    ("download", "Download", SKY, ""),
    ("compute", "Compute", BLUE, ""),
    ("upload", "Upload", ORANGE, ""),
    ("idle", "Idle", "rgba(140,140,140,0.28)", "/"),
)


def class_style(classes: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and pattern of each device class; beyond the six colours, the pattern tells classes apart."""
    return {
        name: (CLASS_COLORS[i % len(CLASS_COLORS)], CLASS_PATTERNS[i // len(CLASS_COLORS) % len(CLASS_PATTERNS)])
        for i, name in enumerate(classes)
    }


def faded(color: str) -> str:
    """A colour ``#RRGGBB`` as a translucent one, for bands."""
    red, green, blue = (int(color[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Class names without the words that all of them begin with: ``jetson-tx2`` is ``tx2`` beside other Jetsons."""
    known = list(dict.fromkeys(names))
    while len(known) > 1 and all("-" in name for name in known):
        first = {name.partition("-")[0] for name in known}
        if len(first) > 1:
            break
        known = [name.partition("-")[2] for name in known]
    return dict(zip(dict.fromkeys(names), known, strict=True))


def axis_places(rounds: pd.DataFrame, axis: Axis, longest: float) -> pd.Series:
    """Positions of the rounds on an axis; ``longest``: virtual seconds of the longest run on it."""
    if axis == "time":
        return rounds["virtual_clock"] / time_unit(longest).seconds
    return rounds["round"] if axis == "round" else rounds["megabytes"]


def axis_title(figure: go.Figure, axis: Axis, longest: float, rounds: pd.Series) -> None:
    """What the axis of :func:`axis_places` measures."""
    if axis == "round":
        round_axis(figure, rounds)
    elif axis == "time":
        figure.update_xaxes(title_text=f"Virtual time ({time_unit(longest).name})", rangemode="tozero")
    else:
        figure.update_xaxes(title_text="Traffic (MB)", rangemode="tozero")


def folded(name: str, width: int = 11) -> str:
    """A class name on lines of about ``width`` letters, broken after hyphens, so that labels leave room."""
    lines = [""]
    for part in re.split(r"(?<=[-_ ])", name):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "<br>".join(lines)


def colorbar(title: str, **more: object) -> dict[str, object]:
    """A flat colour bar above the plot, so that a narrow screen keeps its width for the map."""
    bar: dict[str, object] = {
        "title": {"text": title, "side": "top"},
        "orientation": "h",
        "thickness": 10,
        "x": 0,
        "xanchor": "left",
        "y": 1.02,
        "yanchor": "bottom",
        "len": 1.0,
        "outlinewidth": 0,
    }
    return bar | more


def round_axis(figure: go.Figure, rounds: pd.Series) -> None:
    """An axis of whole rounds."""
    last = int(rounds.max()) if len(rounds) else 0
    figure.update_xaxes(title_text="Round", tickformat="d", dtick=1 if 0 < last <= 12 else None)


def bar_axis(figure: go.Figure, rounds: pd.Series) -> None:
    """An axis of whole rounds for bars, without space for missing rounds."""
    round_axis(figure, rounds)
    if len(rounds):
        figure.update_xaxes(range=[int(rounds.min()) - 0.6, int(rounds.max()) + 0.6])


def title_below(figure: go.Figure) -> None:
    """Move the title of the horizontal axis below its numbers, which it would overlap on a map with few columns."""
    figure.update_xaxes(title_standoff=36)
    figure.update_layout(margin_b=68)


def finish(figure: go.Figure, height: int, left: int = 60, top: int = 28) -> None:
    """The layout of all figures. Margins are fixed, so that figures align and do not move on updates."""
    figure.update_layout(
        height=height,
        margin={"l": left, "r": 8, "t": top, "b": 44, "pad": 0, "autoexpand": False},
        legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom", "title": {"text": ""}},
        hovermode="x",
        uirevision="kept",
        dragmode=False,
    )
    figure.update_xaxes(title_standoff=8, showgrid=False)
    figure.update_yaxes(title_standoff=8)
