"""Bars of what each round costs."""

import pandas as pd
import plotly.graph_objects as go

from slimfed.dashboard import format
from slimfed.dashboard.figures.style import BLUE, GREEN, LINE_HEIGHT, ORANGE, PURPLE, SKY, bar_axis, finish
from slimfed.platform.format import time_unit

_HEIGHT = LINE_HEIGHT - 60


def traffic(rounds: pd.DataFrame) -> go.Figure:
    """Bytes sent and received, stacked."""
    unit, name = _unit(float((rounds["bytes_down"] + rounds["bytes_up"]).max()), "B")
    figure = go.Figure()
    for column, word, color, pattern in (("bytes_down", "Sent", SKY, ""), ("bytes_up", "Received", BLUE, "/")):
        _bars(figure, rounds, column, unit, word, color, format.size, pattern)
    return _finished(figure, rounds, f"Traffic ({name})", stacked=True)


def energy(rounds: pd.DataFrame) -> go.Figure:
    """Joules of all devices."""
    unit, name = _unit(float(rounds["joules"].max()), "J")
    figure = go.Figure()
    _bars(figure, rounds, "joules", unit, "Energy", ORANGE, format.energy)
    return _finished(figure, rounds, f"Energy ({name})")


def memory(rounds: pd.DataFrame) -> go.Figure:
    """The device that needed most."""
    unit, name = _unit(float(rounds["peak_memory_bytes"].max()), "B")
    figure = go.Figure()
    _bars(figure, rounds, "peak_memory_bytes", unit, "Peak memory", PURPLE, format.size)
    return _finished(figure, rounds, f"Peak memory ({name})")


def wall_time(rounds: pd.DataFrame) -> go.Figure:
    """Real seconds."""
    unit = time_unit(float(rounds["wall_seconds"].max()))
    figure = go.Figure()
    _bars(figure, rounds, "wall_seconds", unit.seconds, "Wall time", GREEN, format.seconds)
    return _finished(figure, rounds, f"Wall time ({unit.name})")


def _bars(
    figure: go.Figure,
    rounds: pd.DataFrame,
    column: str,
    unit: float,
    name: str,
    color: str,
    written: format.Written,
    pattern: str = "",
) -> None:
    figure.add_bar(
        x=rounds["round"],
        y=rounds[column] / unit,
        name=name,
        marker={"color": color, "line": {"width": 0}, "pattern": {"shape": pattern}},
        customdata=rounds[column].map(written),
        hovertemplate=f"round %{{x}}: {name.lower()} %{{customdata}}<extra></extra>",
    )


def _finished(figure: go.Figure, rounds: pd.DataFrame, title: str, *, stacked: bool = False) -> go.Figure:
    finish(figure, _HEIGHT)
    figure.update_layout(barmode="stack", bargap=0.25, showlegend=stacked)
    bar_axis(figure, rounds["round"])
    figure.update_yaxes(title_text=title, rangemode="tozero")
    return figure


def _unit(largest: float, name: str) -> tuple[float, str]:
    """The largest decimal unit of which ``largest`` is at least one, and its name."""
    for power, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if largest >= power:
            return power, prefix + name
    return 1.0, name
