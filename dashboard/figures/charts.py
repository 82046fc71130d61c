"""Tidy frames in, Plotly figures out. Nothing here reads the store or knows Streamlit.

Colours are told apart under every common colour blindness: Okabe and Ito's set for things that have names
(https://jfly.uni-koeln.de/color/), cividis and viridis for amounts. Every axis says its unit.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from slimfed.dashboard import format

Axis = Literal["round", "time", "bytes"]

BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
CLASS_COLORS = (SKY, ORANGE, GREEN, PURPLE, VERMILLION, BLUE)
CLASS_PATTERNS = ("", "/", ".", "x")
LINE_HEIGHT = 320
MARKERS_UP_TO = 60
LABELS_UP_TO = 30
BAR_WIDTH = 0.75


@dataclass(frozen=True)
class Line:
    """One curve: a column of the frame, its name in the legend, and how it is drawn."""

    column: str
    name: str
    color: str
    dash: str = "solid"


@dataclass(frozen=True)
class TimeUnit:
    """Unit of a time axis."""

    name: str
    seconds: float


TIME_UNITS = (TimeUnit("s", 1.0), TimeUnit("min", 60.0), TimeUnit("h", 3600.0), TimeUnit("days", 86400.0))


def time_unit(longest: float) -> TimeUnit:
    """The largest unit of which ``longest`` seconds are at least two."""
    return next((unit for unit in reversed(TIME_UNITS) if longest >= 2 * unit.seconds), TIME_UNITS[0])


def class_style(classes: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and pattern of each device class; beyond the six colours, the pattern tells classes apart."""
    return {
        name: (CLASS_COLORS[i % len(CLASS_COLORS)], CLASS_PATTERNS[i // len(CLASS_COLORS) % len(CLASS_PATTERNS)])
        for i, name in enumerate(classes)
    }


def accuracy(rounds: pd.DataFrame, axis: Axis, counted: str = "test examples") -> go.Figure:
    """Accuracy of the pruned global model, and mean accuracy of the devices' own, by round or virtual time."""
    lines = (
        Line("accuracy", "Global model", BLUE),
        Line("device_accuracy_mean", "Devices' own, mean", VERMILLION, "dot"),
    )
    figure = _curves(rounds, lines, axis, scale=100.0, hover="%{y:.1f}%")
    figure.update_yaxes(title_text=f"Accuracy (% of {counted})")
    return figure


def loss(rounds: pd.DataFrame, axis: Axis) -> go.Figure:
    """Loss of the global model on the test split, and the fleet's mean training loss, by round or virtual time."""
    lines = (
        Line("loss", "Global model, test", BLUE),
        Line("train_loss", "Devices, training", VERMILLION, "dot"),
    )
    figure = _curves(rounds, lines, axis, scale=1.0, hover="%{y:.3f}")
    figure.update_yaxes(title_text="Loss (nats)")
    return figure


def sparsity_map(grid: pd.DataFrame, target: float) -> go.Figure:
    """Sparsity of every device after every round. ``grid``: rows (class, device), columns rounds, shares in [0, 1]."""
    values = grid.to_numpy(dtype=float) * 100
    seen = np.nanmax(values) if np.isfinite(values).any() else 0.0
    figure = _heat_map(grid, values, "%{z:.1f}% removed")
    figure.update_traces(
        colorscale="Cividis",
        zmin=0,
        zmax=max(100 * target, float(seen), 1.0),
        colorbar=colorbar("Sparsity (% of prunable parameters)", ticksuffix="%", nticks=6),
    )
    return figure


def rank_map(grid: pd.DataFrame) -> go.Figure:
    """LoRA rank of every device in every round, in even steps of colour; ``grid`` as in :func:`sparsity_map`."""
    ranks = grid.to_numpy(dtype=float)
    known = np.unique(ranks[np.isfinite(ranks)])
    steps = np.where(np.isfinite(ranks), np.searchsorted(known, ranks), np.nan)
    count = max(len(known), 1)
    figure = _heat_map(grid, steps, "rank %{text:.0f}")
    figure.update_traces(
        text=ranks,
        colorscale=_stepped("Viridis", count),
        zmin=-0.5,
        zmax=count - 0.5,
        colorbar=colorbar(
            "LoRA rank (rows of each factor)",
            tickvals=list(range(len(known))),
            ticktext=[f"{rank:.0f}" for rank in known],
        ),
    )
    return figure


def mean_rank_map(grid: pd.DataFrame) -> go.Figure:
    """Mean rank of each class in every round; ``grid`` as in :func:`sparsity_map`."""
    figure = _heat_map(grid, grid.to_numpy(dtype=float), "mean rank %{z:.1f}")
    figure.update_traces(
        colorscale="Viridis", colorbar=colorbar("Mean LoRA rank (rows of each factor)", nticks=6), zmin=0
    )
    return figure


def slowest(frame: pd.DataFrame, classes: Sequence[str]) -> go.Figure:
    """The device that each round waited for: completion time as a bar, coloured by the device's class."""
    unit = time_unit(float(frame["seconds"].max()) if len(frame) else 0.0)
    figure = go.Figure()
    for name, (color, pattern) in class_style(classes).items():
        rows = frame[frame["class"] == name]
        if rows.empty:
            continue
        figure.add_bar(
            x=rows["round"],
            y=rows["seconds"] / unit.seconds,
            width=BAR_WIDTH,  # else a class that was slowest in every third round gets bars three rounds wide
            name=name,
            marker={"color": color, "pattern": {"shape": pattern}, "line": {"width": 0}},
            customdata=np.column_stack(
                [rows["device"].astype(str)]
                + [rows[part].map(format.seconds) for part in ("seconds", "download", "compute", "upload")]
            ),
            text=rows["device"] if len(frame) <= LABELS_UP_TO else None,
            textposition="outside",
            textangle=0,
            cliponaxis=False,
            hovertemplate=(
                "round %{x}: device %{customdata[0]}, %{customdata[1]}<br>"
                "download %{customdata[2]} · compute %{customdata[3]} · upload %{customdata[4]}"
            ),
        )
    finish(figure, LINE_HEIGHT, top=28 + 20 * (len(figure.data) // 3))
    figure.update_layout(barmode="overlay", showlegend=True)
    bar_axis(figure, frame["round"])
    figure.update_yaxes(title_text=f"Completion time ({unit.name})", rangemode="tozero")
    return figure


def _curves(rounds: pd.DataFrame, lines: Sequence[Line], axis: Axis, scale: float, hover: str) -> go.Figure:
    longest = float(rounds["virtual_clock"].max()) if len(rounds) else 0.0
    places = axis_places(rounds, axis, longest)
    figure = go.Figure()
    for line in lines:
        known = rounds[line.column].notna()
        figure.add_scatter(
            x=places[known],
            y=rounds.loc[known, line.column] * scale,
            name=line.name,
            mode="lines+markers" if len(rounds) <= MARKERS_UP_TO else "lines",
            line={"color": line.color, "dash": line.dash, "width": 2},
            marker={"size": 5},
            customdata=rounds.loc[known, "round"],
            hovertemplate=f"{hover} after round %{{customdata}}<extra>{line.name}</extra>",
        )
    finish(figure, LINE_HEIGHT)
    axis_title(figure, axis, longest, rounds["round"])
    return figure


def axis_places(rounds: pd.DataFrame, axis: Axis, longest: float) -> pd.Series:
    """Where the rounds stand on an axis; ``longest``: virtual seconds of the longest run on it."""
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
        figure.update_xaxes(title_text="Sent both ways (MB)", rangemode="tozero")


def _heat_map(grid: pd.DataFrame, values: np.ndarray, hover: str) -> go.Figure:
    """Rows from top to bottom in the order of ``grid``, named by class in the middle of each class."""
    names = grid.index.get_level_values("class")
    figure = go.Figure(
        go.Heatmap(
            x=list(grid.columns),
            y=[f"device {d}" if d != "mean" else f"mean of {c}" for c, d in grid.index],
            z=values,
            hovertemplate=f"%{{y}}, round %{{x}}: {hover}<extra></extra>",
            xgap=0,
            ygap=0,
        )
    )
    middles, edges, start = [], [], 0
    for name in names.unique():
        count = int((names == name).sum())
        middles.append((start + (count - 1) / 2, _folded(name)))
        start += count
        edges.append(start - 0.5)
    for edge in edges[:-1]:
        figure.add_hline(y=edge, line={"color": "white", "width": 2})
    finish(figure, min(max(220 + 3 * len(grid), 380), 560), left=106, top=64)
    figure.update_layout(hovermode="closest")
    round_axis(figure, pd.Series(grid.columns, dtype=int))
    title_below(figure)
    figure.update_yaxes(
        title_text="Devices, by class",
        tickvals=[place for place, _ in middles],
        ticktext=[name for _, name in middles],
        range=[len(grid) - 0.5, -0.5],
        showgrid=False,
    )
    return figure


def _folded(name: str, width: int = 11) -> str:
    """A class name on lines of about ``width`` letters, broken after hyphens, so that labels leave the map its room."""
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


def _stepped(scale: str, count: int) -> list[list[object]]:
    """A colour scale of ``count`` flat steps."""
    places = [0.5] if count == 1 else list(np.linspace(0, 1, count))
    colors = sample_colorscale(scale, places)
    return [[edge / count, color] for i, color in enumerate(colors) for edge in (i, i + 1)]


def round_axis(figure: go.Figure, rounds: pd.Series) -> None:
    """An axis of whole rounds."""
    last = int(rounds.max()) if len(rounds) else 0
    figure.update_xaxes(title_text="Round", tickformat="d", dtick=1 if 0 < last <= 12 else None)


def bar_axis(figure: go.Figure, rounds: pd.Series) -> None:
    """The same for bars, which else get room for rounds that there are none of."""
    round_axis(figure, rounds)
    if len(rounds):
        figure.update_xaxes(range=[int(rounds.min()) - 0.6, int(rounds.max()) + 0.6])


def title_below(figure: go.Figure) -> None:
    """Put the title of the horizontal axis clear of its numbers, which a map's few columns leave in its way."""
    figure.update_xaxes(title_standoff=36)
    figure.update_layout(margin_b=68)


def finish(figure: go.Figure, height: int, left: int = 60, top: int = 28) -> None:
    """Looks that all figures share. Margins are fixed, so that figures side by side align and updates do not jump."""
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
