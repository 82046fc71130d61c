"""Bar charts: time of a round, events, participation, memory."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from slimfed.dashboard import format
from slimfed.dashboard.figures.style import (
    BAR_WIDTH,
    BLUE,
    GREEN,
    LABELS_UP_TO,
    LINE_HEIGHT,
    MARKERS_UP_TO,
    ORANGE,
    PARTS,
    PURPLE,
    RUN_DASHES,
    RUN_SIGNS,
    SKY,
    VERMILLION,
    bar_axis,
    class_style,
    finish,
    round_axis,
    short_names,
)
from slimfed.platform.format import time_unit


def slowest(frame: pd.DataFrame, classes: Sequence[str]) -> go.Figure:
    """The slowest device of each round: completion time as a bar, coloured by the device's class."""
    unit = time_unit(float(frame["seconds"].max()) if len(frame) else 0.0)
    figure = go.Figure()
    for name, (color, pattern) in class_style(classes).items():
        rows = frame[frame["class"] == name]
        if rows.empty:
            continue
        figure.add_bar(
            x=rows["round"],
            y=rows["seconds"] / unit.seconds,
            width=BAR_WIDTH,  # otherwise bars of a class that is slowest in every third round are three rounds wide
            name=format.figure(name),
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


EVENT_COLORS = (VERMILLION, ORANGE, PURPLE, SKY, BLUE, GREEN)

_BAR_HEIGHT = 19


def timeline(frame: pd.DataFrame) -> go.Figure:
    """A bar a device, newest round on top, the slowest device first: download, compute, upload, idle."""
    unit = time_unit(float(frame["round_seconds"].max()) if len(frame) else 0.0)
    figure = go.Figure()
    # A device in two rounds has a different name in each (a zero-width space), so that each keeps its order.
    nth = {number: place for place, number in enumerate(frame["round"].unique())}
    short = short_names(list(frame["class"]))
    names = [
        f"{format.figure(short[kind])} {device}{chr(0x200B) * nth[number]}"
        for kind, device, number in zip(frame["class"], frame["device"], frame["round"], strict=True)
    ]
    place = [[f"Round {number}" for number in frame["round"]], names]
    seconds = frame["seconds"].map(format.seconds)
    about = np.column_stack([frame["class"].map(format.figure), frame["status"], seconds, frame["device"].astype(str)])
    for column, name, color, pattern in PARTS:
        figure.add_bar(
            y=place,
            x=frame[column] / unit.seconds,
            name=name,
            orientation="h",
            marker={"color": color, "line": {"width": 0}, "pattern": {"shape": pattern, "size": 5}},
            customdata=np.column_stack([about, frame[column].map(format.seconds)]),
            hovertemplate=(
                f"device %{{customdata[3]}}, %{{customdata[0]}}: {name.lower()} %{{customdata[4]}}<br>"
                "%{customdata[2]} in all, %{customdata[1]}<extra></extra>"
            ),
        )
    rounds = frame["round"].nunique()
    finish(figure, 84 + _BAR_HEIGHT * len(frame) + 6 * rounds, left=76 + 6 * max(map(len, names), default=4), top=56)
    figure.update_layout(barmode="stack", bargap=0.2, hovermode="closest", legend_traceorder="normal")
    figure.update_xaxes(title_text=f"Time since the round began ({unit.name})", rangemode="tozero", showgrid=True)
    figure.update_yaxes(title_text="", autorange="reversed", showdividers=False, tickson="labels")
    return figure


def events(frame: pd.DataFrame) -> go.Figure:
    """Events of each kind by round, as stacked bars."""
    figure = go.Figure()
    for place, kind in enumerate(sorted(frame["kind"].unique())):
        rows = frame[frame["kind"] == kind]
        figure.add_bar(
            x=rows["round"],
            y=rows["count"],
            width=BAR_WIDTH,
            name=kind,
            marker={
                "color": EVENT_COLORS[place % len(EVENT_COLORS)],
                "pattern": {"shape": ("", "/", ".", "x")[place % 4], "size": 5},
                "line": {"width": 0},
            },
            hovertemplate=f"round %{{x}}: %{{y}} × {kind}<extra></extra>",
        )
    finish(figure, 260)
    figure.update_layout(barmode="stack", showlegend=True)
    bar_axis(figure, frame["round"])
    figure.update_yaxes(title_text="Events (number)", rangemode="tozero", tickformat="d")
    return figure


def participation(frame: pd.DataFrame, classes: Sequence[str]) -> go.Figure:
    """Share of each class's devices whose update was used, by round."""
    figure = go.Figure()
    for place, (kind, (color, _)) in enumerate(class_style(classes).items()):
        rows, name = frame[frame["class"] == kind], format.figure(kind)
        figure.add_scatter(
            x=rows["round"],
            y=100 * rows["done"] / rows["devices"],
            name=name,
            mode="lines+markers" if len(rows) <= MARKERS_UP_TO else "lines",
            line={"color": color, "width": 2, "dash": RUN_DASHES[place % len(RUN_DASHES)]},
            marker={"size": 6, "symbol": RUN_SIGNS[place % len(RUN_SIGNS)]},
            customdata=np.column_stack([rows["done"], rows["devices"]]),
            hovertemplate=f"{name}: %{{customdata[0]}} of %{{customdata[1]}} in round %{{x}}<extra></extra>",
        )
    finish(figure, LINE_HEIGHT, top=28 + 20 * (len(classes) // 3))
    round_axis(figure, frame["round"])
    figure.update_yaxes(title_text="Updates used (% of the class)", range=[0, 104])
    return figure


def memory(frame: pd.DataFrame) -> go.Figure:
    """Of each class: the memory that training may use, and the most that one of its devices needed."""
    figure = go.Figure()
    for column, name, color, pattern in (("holds", "It has", SKY, ""), ("needed", "Most needed so far", BLUE, "/")):
        figure.add_bar(
            y=frame["class"].map(format.figure),
            x=frame[column],
            name=name,
            orientation="h",
            marker={"color": color, "line": {"width": 0}, "pattern": {"shape": pattern, "size": 5}},
            text=[
                "" if pd.isna(value) else f"{value:.1f}" if value >= 1 else f"{value:.2f}" for value in frame[column]
            ],
            textposition="outside",
            cliponaxis=False,
            hovertemplate=f"%{{y}}: {name.lower()} %{{x:.2f}} GiB<extra></extra>",
        )
    finish(figure, 110 + 52 * len(frame), left=140)
    figure.update_layout(barmode="group", bargap=0.3, hovermode="closest")
    # A logarithmic axis: a model that needs a hundredth of what a class has would be a bar too small to see.
    known = pd.concat([frame["holds"], frame["needed"]]).dropna()
    least, most = (float(known.min()), float(known.max())) if len(known) else (0.1, 1.0)
    ends = [np.floor(np.log10(max(least, 1e-4)) - 0.1), np.log10(max(most, 1e-3)) + 0.35]
    figure.update_xaxes(title_text="Memory for training (GiB)", type="log", range=ends, dtick=1, showgrid=True)
    figure.update_yaxes(title_text="", autorange="reversed")
    return figure
