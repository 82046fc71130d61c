"""More figures: where a round's time went, what the bandits learnt, what is left of the model, runs side by side.

As in :mod:`slimfed.dashboard.figures.charts`: frames in, figures out.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from slimfed.dashboard import format
from slimfed.dashboard.figures.charts import (
    BAR_WIDTH,
    BLUE,
    GREEN,
    LINE_HEIGHT,
    MARKERS_UP_TO,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    Axis,
    axis_places,
    axis_title,
    bar_axis,
    class_style,
    colorbar,
    finish,
    round_axis,
    time_unit,
    title_below,
)

PARTS = (
    ("download", "Download", SKY, ""),
    ("compute", "Compute", BLUE, ""),
    ("upload", "Upload", ORANGE, ""),
    ("idle", "Idle", "rgba(140,140,140,0.28)", "/"),
)
EVENT_COLORS = (VERMILLION, ORANGE, PURPLE, SKY, BLUE, GREEN)
RUN_COLORS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, "#8C8C8C", "#6A3D00")
RUN_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "solid", "dash", "dot")
RUN_SIGNS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "star", "hexagon")
_BAR_HEIGHT = 19


def timeline(frame: pd.DataFrame) -> go.Figure:
    """A bar a device, newest round on top, the slowest device first: download, compute, upload, idle."""
    unit = time_unit(float(frame["round_seconds"].max()) if len(frame) else 0.0)
    figure = go.Figure()
    # A device that comes in two rounds gets a name in each (a space of no width), or the first round's order rules.
    nth = {number: place for place, number in enumerate(frame["round"].unique())}
    names = [f"{d}{chr(0x200B) * nth[r]}" for d, r in zip(frame["device"], frame["round"], strict=True)]
    place = [[f"Round {number}" for number in frame["round"]], names]
    about = np.column_stack([frame["class"], frame["status"], frame["seconds"].map(format.seconds)])
    for column, name, color, pattern in PARTS:
        figure.add_bar(
            y=place,
            x=frame[column] / unit.seconds,
            name=name,
            orientation="h",
            marker={"color": color, "line": {"width": 0}, "pattern": {"shape": pattern, "size": 5}},
            customdata=np.column_stack([about, frame[column].map(format.seconds)]),
            hovertemplate=(
                f"device %{{y}}, %{{customdata[0]}}: {name.lower()} %{{customdata[3]}}<br>"
                "%{customdata[2]} in all, %{customdata[1]}<extra></extra>"
            ),
        )
    rounds = frame["round"].nunique()
    finish(figure, 84 + _BAR_HEIGHT * len(frame) + 6 * rounds, left=96, top=56)
    figure.update_layout(barmode="stack", bargap=0.2, hovermode="closest", legend_traceorder="normal")
    figure.update_xaxes(title_text=f"Time since the round began ({unit.name})", rangemode="tozero", showgrid=True)
    figure.update_yaxes(title_text="", autorange="reversed", showdividers=False, tickson="labels")
    return figure


def boxes(frame: pd.DataFrame, ranks: Sequence[int]) -> go.Figure:
    """Boxes over pruning step and rank, coloured by mean reward, each with its number of pulls."""
    figure = go.Figure()
    known = frame["reward"].dropna()
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    high = max(high, low + 0.01)  # rewards that hardly differ should look so
    level = {rank: place for place, rank in enumerate(ranks)}
    shade = (frame["reward"].fillna(low) - low) / (high - low)
    colors = sample_colorscale("Cividis", list(shade)) if len(frame) else []
    shapes = [
        {
            "type": "rect",
            "x0": 100 * row.low,
            "x1": 100 * row.high,
            "y0": level[row.ranks[0]] - 0.5,
            "y1": level[row.ranks[-1]] + 0.5,
            "fillcolor": "rgba(140,140,140,0.15)" if np.isnan(row.reward) else color,
            "line": {"color": "rgba(255,255,255,0.7)", "width": 1},
            "layer": "below",
        }
        for row, color in zip(frame.itertuples(), colors, strict=True)
    ]
    middle = 50 * (frame["low"] + frame["high"])
    height = [(level[ranks_[0]] + level[ranks_[-1]]) / 2 for ranks_ in frame["ranks"]]
    wide = (frame["high"] - frame["low"]) >= 0.012
    figure.add_scatter(
        x=middle,
        y=height,
        mode="markers+text",
        text=[f"{n:,}" if big and n else "" for n, big in zip(frame["pulls"], wide, strict=True)],
        textfont={"size": 11, "color": ["#111" if dark > 0.55 else "#fff" for dark in shade]},
        marker={
            "color": frame["reward"],
            "colorscale": "Cividis",
            "cmin": low,
            "cmax": high,
            "opacity": 0,
            "size": 18,
            "colorbar": colorbar("Mean reward of the pulls in a box (no unit)", nticks=6, tickformat=".3~f"),
            "showscale": True,
        },
        customdata=np.column_stack(
            [
                [f"{100 * a:.1f} to {100 * b:.1f}%" for a, b in zip(frame["low"], frame["high"], strict=True)],
                [", ".join(map(str, each)) for each in frame["ranks"]],
                frame["pulls"],
                ["never pulled" if np.isnan(r) else f"{r:.3f}" for r in frame["reward"]],
            ]
        )
        if len(frame)
        else None,
        hovertemplate=(
            "step %{customdata[0]}, rank %{customdata[1]}<br>%{customdata[2]} pulls, mean reward %{customdata[3]}"
            "<extra></extra>"
        ),
    )
    finish(figure, max(LINE_HEIGHT, 150 + 52 * len(ranks)), top=64)
    figure.update_layout(hovermode="closest", showlegend=False, shapes=shapes)
    figure.update_xaxes(title_text="Pruning step (% of the remaining structure)", rangemode="tozero")
    figure.update_yaxes(
        title_text="Rank of the adapter",
        tickvals=list(range(len(ranks))),
        ticktext=[str(rank) for rank in ranks],
        range=[-0.6, len(ranks) - 0.4],
        showgrid=False,
        zeroline=False,
    )
    return figure


def structure(frame: pd.DataFrame, unit: str) -> go.Figure:
    """Blocks of one kind as rows, stretches of their units as columns, coloured by the share that the fleet keeps."""
    width = max((len(shares) for shares in frame["shares"]), default=1)
    values = np.full((len(frame), width), np.nan)
    for row, shares in enumerate(frame["shares"]):
        values[row, : len(shares)] = 100 * shares
    figure = go.Figure(
        go.Heatmap(
            x=list(range(1, width + 1)),
            y=list(range(len(frame))),
            z=values,
            customdata=np.repeat(
                np.column_stack([frame["layer"], frame["kept"].round(1), frame["units"]])[:, None, :], width, axis=1
            ),
            hovertemplate=(
                "layer %{customdata[0]}, place %{x}: kept by %{z:.0f}%<br>"
                "a device has %{customdata[1]} of %{customdata[2]} left on average<extra></extra>"
            ),
            colorscale="Cividis",
            zmin=0,
            zmax=100,
            xgap=1,
            ygap=1,
            colorbar=colorbar("Kept (% of the fleet's devices)", ticksuffix="%", nticks=6),
        )
    )
    finish(figure, max(210 + 24 * len(frame), 260), top=64)
    figure.update_layout(hovermode="closest")
    figure.update_xaxes(title_text=unit, tickformat="d", dtick=1 if width <= 16 else None)
    title_below(figure)
    figure.update_yaxes(
        title_text="Layer",
        tickvals=list(range(len(frame))),
        ticktext=[str(layer) for layer in frame["layer"]],
        autorange="reversed",
        showgrid=False,
    )
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
    for place, (name, (color, _)) in enumerate(class_style(classes).items()):
        rows = frame[frame["class"] == name]
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


def runs_compared(frames: Mapping[str, pd.DataFrame], axis: Axis, title: str, target: float | None) -> go.Figure:
    """A curve a run, by name, over a shared axis; ``target`` as a line across. ``frames`` have ``quality``."""
    figure = go.Figure()
    longest = max((float(f["virtual_clock"].max()) for f in frames.values() if len(f)), default=0.0)
    for place, (name, frame) in enumerate(frames.items()):
        figure.add_scatter(
            x=axis_places(frame, axis, longest),
            y=100 * frame["quality"],
            name=name,
            mode="lines+markers" if len(frame) <= MARKERS_UP_TO else "lines",
            line={"color": RUN_COLORS[place], "dash": RUN_DASHES[place], "width": 2},
            marker={"size": 6, "symbol": RUN_SIGNS[place]},
            customdata=frame["round"],
            hovertemplate=f"%{{y:.1f}}% after round %{{customdata}}<extra>{name}</extra>",
        )
    if target is not None:
        figure.add_hline(
            y=100 * target,
            line={"color": "#8C8C8C", "dash": "dash", "width": 1.5},
            annotation={"text": f"target {100 * target:.1f}%", "xanchor": "right", "font": {"size": 12}},
        )
    finish(figure, 380, top=30 + 20 * ((len(frames) + 1) // 2))
    axis_title(figure, axis, longest, pd.concat([f["round"] for f in frames.values()]) if frames else pd.Series())
    figure.update_layout(hovermode="closest", showlegend=True)
    figure.update_yaxes(title_text=title)
    return figure


def pareto(frame: pd.DataFrame, title: str) -> go.Figure:
    """Accuracy against what a forward pass still costs: a point an evaluated round, the front of all as a line.

    ``frame``: ``run`` (name), ``round``, ``cost`` (share of the prunable parameters left), ``quality``, ``front``.
    """
    figure = go.Figure()
    for place, name in enumerate(frame["run"].unique()):
        rows = frame[frame["run"] == name]
        figure.add_scatter(
            x=100 * rows["cost"],
            y=100 * rows["quality"],
            name=name,
            mode="markers",
            marker={"color": RUN_COLORS[place], "symbol": RUN_SIGNS[place], "size": 8, "opacity": 0.85},
            customdata=rows["round"],
            hovertemplate=f"%{{y:.1f}}% at %{{x:.1f}}% of the cost, round %{{customdata}}<extra>{name}</extra>",
        )
    front = frame[frame["front"]].sort_values("cost")
    figure.add_scatter(
        x=100 * front["cost"],
        y=100 * front["quality"],
        name="Pareto front",
        mode="lines",
        line={"color": "#8C8C8C", "width": 1.5, "shape": "hv", "dash": "dot"},
        hoverinfo="skip",
    )
    finish(figure, 380, top=30 + 20 * ((frame["run"].nunique() + 2) // 2))
    figure.update_layout(hovermode="closest", showlegend=True)
    figure.update_xaxes(title_text="Inference cost (% of the prunable parameters left)", showgrid=True)
    figure.update_yaxes(title_text=f"{title} (%)")
    return figure


def memory(frame: pd.DataFrame) -> go.Figure:
    """Of each class: the memory that training may use, and the most that one of its devices needed."""
    figure = go.Figure()
    for column, name, color, pattern in (("holds", "It has", SKY, ""), ("needed", "Most needed so far", BLUE, "/")):
        figure.add_bar(
            y=frame["class"],
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
    figure.update_xaxes(title_text="Memory for training (GiB)", rangemode="tozero", showgrid=True)
    figure.update_yaxes(title_text="", autorange="reversed")
    return figure
