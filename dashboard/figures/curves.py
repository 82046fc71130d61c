"""Curves over rounds, virtual time or bytes: one run, several runs, one device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from slimfed.dashboard import format
from slimfed.dashboard.figures.frames import samples
from slimfed.dashboard.figures.style import (
    BLUE,
    LINE_HEIGHT,
    MARKERS_UP_TO,
    PARTS,
    RUN_COLORS,
    RUN_DASHES,
    RUN_SIGNS,
    VERMILLION,
    Axis,
    axis_places,
    axis_title,
    faded,
    finish,
    round_axis,
)
from slimfed.platform.format import time_unit

_CORNERS = ("top right", "top left", "bottom right", "bottom left")


@dataclass(frozen=True)
class Line:
    """One curve: a column of the frame, its name in the legend, and how it is drawn.

    ``of_global``: a measure of the global model, whose points are hollow where they are estimates from a sample.
    """

    column: str
    name: str
    color: str
    dash: str = "solid"
    of_global: bool = False


def accuracy(
    rounds: pd.DataFrame,
    axis: Axis,
    counted: str = "test examples",
    references: Mapping[str, float] | None = None,
    pruned_until: int | None = None,
) -> go.Figure:
    """Accuracy of the pruned global model, and mean accuracy of the devices' own, by round or virtual time.

    ``references``: accuracies in [0, 1] that are drawn across, by what they are called. ``pruned_until``: the last
    round of the pruning window, which is shaded.
    """
    lines = (
        Line("accuracy", "Global model", BLUE, of_global=True),
        Line("device_accuracy_mean", "Devices' own, mean", VERMILLION, "dot"),
    )
    figure = _curves(rounds, lines, axis, scale=100.0, hover="%{y:.1f}%", pruned_until=pruned_until)
    for place, (name, share) in enumerate((references or {}).items()):
        figure.add_hline(
            y=100 * share,
            line={"color": "#8C8C8C", "dash": "dot", "width": 1.5},
            annotation={"text": f"{format.figure(name)} {100 * share:.1f}%", "font": {"size": 12}},
            annotation_position=_CORNERS[place % len(_CORNERS)],  # apart, since references are often close
        )
    figure.update_yaxes(title_text=f"Accuracy (% of {counted})")
    return figure


def perplexity(rounds: pd.DataFrame, axis: Axis, pruned_until: int | None = None) -> go.Figure:
    """Perplexity of the global model on the test split, by round or virtual time; the axis is logarithmic.

    ``pruned_until``: as in :func:`accuracy`.
    """
    frame = rounds.assign(perplexity=np.exp(rounds["loss"].astype(float).clip(upper=700.0)))
    lines = (Line("perplexity", "Global model", BLUE, of_global=True),)
    figure = _curves(frame, lines, axis, scale=1.0, hover="%{y:.2f}", pruned_until=pruned_until)
    figure.update_yaxes(title_text="Perplexity", type="log", dtick="D2" if len(frame) else None)
    return figure


def loss(rounds: pd.DataFrame, axis: Axis, pruned_until: int | None = None) -> go.Figure:
    """Loss of the global model on the test split, and the fleet's mean training loss, by round or virtual time.

    ``pruned_until``: as in :func:`accuracy`.
    """
    lines = (
        Line("loss", "Global model, test", BLUE, of_global=True),
        Line("train_loss", "Devices, training", VERMILLION, "dot"),
    )
    figure = _curves(rounds, lines, axis, scale=1.0, hover="%{y:.3f}", pruned_until=pruned_until)
    figure.update_yaxes(title_text="Loss (nats)")
    return figure


def _curves(
    rounds: pd.DataFrame, lines: Sequence[Line], axis: Axis, scale: float, hover: str, pruned_until: int | None
) -> go.Figure:
    longest = float(rounds["virtual_clock"].max()) if len(rounds) else 0.0
    places = axis_places(rounds, axis, longest)
    figure, notes = go.Figure(), samples(rounds)
    for line in lines:
        known = rounds[line.column].notna()
        note = notes if line.of_global else notes.str[:0]
        figure.add_scatter(
            x=places[known],
            y=rounds.loc[known, line.column] * scale,
            name=format.figure(line.name),
            mode="lines+markers" if len(rounds) <= MARKERS_UP_TO else "lines",
            line={"color": line.color, "dash": line.dash, "width": 2},
            marker={"size": 5, "symbol": ["circle-open" if text else "circle" for text in note[known]]},
            customdata=rounds.loc[known, "round"].astype(str) + note[known],
            hovertemplate=f"{hover} after round %{{customdata}}<extra>{format.figure(line.name)}</extra>",
        )
    finish(figure, LINE_HEIGHT)
    axis_title(figure, axis, longest, rounds["round"])
    _shade_pruning(figure, rounds["round"], places, pruned_until)
    return figure


def _shade_pruning(figure: go.Figure, numbers: pd.Series, places: pd.Series, until: int | None) -> None:
    """Shade the rounds in which devices are pruned, up to round ``until``: dips of the curves are due to that."""
    inside = places[:0] if until is None else places[numbers <= until]
    if inside.empty:
        return
    figure.add_vrect(
        x0=inside.min(),
        x1=inside.max(),
        fillcolor="#8C8C8C",
        opacity=0.14,
        layer="below",
        line_width=0,
        annotation={"text": "pruning", "font": {"size": 11}, "yanchor": "top"},
        annotation_position="top left",
    )


def local_steps(frame: pd.DataFrame) -> go.Figure:
    """Mean local steps of each class by round; the band reaches from its least to its most."""
    figure = go.Figure()
    between = "%{y:.1f} (%{customdata[0]:.0f} to %{customdata[1]:.0f})"
    for place, name in enumerate(frame["class"].unique()):
        rows, color = frame[frame["class"] == name], RUN_COLORS[place % len(RUN_COLORS)]
        for column, filled in (("least", None), ("most", "tonexty")):
            figure.add_scatter(
                x=rows["round"],
                y=rows[column],
                mode="lines",
                line={"width": 0},
                fill=filled,
                fillcolor=faded(color),
                hoverinfo="skip",
                showlegend=False,
            )
        figure.add_scatter(
            x=rows["round"],
            y=rows["mean"],
            name=format.figure(name),
            mode="lines+markers" if len(rows) <= MARKERS_UP_TO else "lines",
            line={"color": color, "width": 2, "dash": RUN_DASHES[place % len(RUN_DASHES)]},
            marker={"size": 5, "symbol": RUN_SIGNS[place % len(RUN_SIGNS)]},
            customdata=rows[["least", "most"]],
            hovertemplate=f"{between}<extra>{format.figure(name)}</extra>",
        )
    finish(figure, LINE_HEIGHT, top=28 + 20 * (frame["class"].nunique() // 3))
    round_axis(figure, frame["round"])
    figure.update_yaxes(title_text="Local steps of a device", rangemode="tozero")
    return figure


def device_history(frame: pd.DataFrame) -> go.Figure:
    """Completion time of one device by round, in its parts."""
    unit = time_unit(float(frame["seconds"].max()) if frame["seconds"].notna().any() else 0.0)
    figure = go.Figure()
    for column, name, color, pattern in PARTS[:3]:
        figure.add_bar(
            x=frame["round"],
            y=frame[column] / unit.seconds,
            name=name,
            marker={"color": color, "line": {"width": 0}, "pattern": {"shape": pattern}},
            customdata=frame[column].map(format.seconds),
            hovertemplate=f"round %{{x}}: {name.lower()} %{{customdata}}<extra></extra>",
        )
    finish(figure, 280)
    figure.update_layout(barmode="stack", bargap=0.25)
    round_axis(figure, frame["round"])
    figure.update_yaxes(title_text=f"Completion time ({unit.name})", rangemode="tozero")
    return figure


def runs_compared(
    frames: Mapping[str, pd.DataFrame], axis: Axis, title: str, target: float | None, called: str = "target"
) -> go.Figure:
    """A curve a run, by name, over a shared axis; ``target`` as a line across, ``called`` so.

    ``frames`` have ``quality``.
    """
    figure = go.Figure()
    longest = max((float(f["virtual_clock"].max()) for f in frames.values() if len(f)), default=0.0)
    for place, (name, frame) in enumerate(frames.items()):
        figure.add_scatter(
            x=axis_places(frame, axis, longest),
            y=100 * frame["quality"],
            name=format.figure(name),
            mode="lines+markers" if len(frame) <= MARKERS_UP_TO else "lines",
            line={"color": RUN_COLORS[place], "dash": RUN_DASHES[place], "width": 2},
            marker={"size": 6, "symbol": RUN_SIGNS[place]},
            customdata=frame["round"],
            hovertemplate=f"%{{y:.1f}}% after round %{{customdata}}<extra>{format.figure(name)}</extra>",
        )
    if target is not None:
        figure.add_hline(
            y=100 * target,
            line={"color": "#8C8C8C", "dash": "dash", "width": 1.5},
            annotation={"text": f"{called} {100 * target:.1f}%", "xanchor": "right", "font": {"size": 12}},
        )
    finish(figure, 380, top=30 + 20 * ((len(frames) + 1) // 2))
    axis_title(figure, axis, longest, pd.concat([f["round"] for f in frames.values()]) if frames else pd.Series())
    figure.update_layout(hovermode="closest", showlegend=True)
    figure.update_yaxes(title_text=title)
    return figure
