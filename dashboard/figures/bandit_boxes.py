"""Pulls and mean rewards of the bandit in boxes over pruning step and rank."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from slimfed.dashboard.figures.style import LINE_HEIGHT, colorbar, finish

_LEAST_OPACITY = 0.3


def boxes(frame: pd.DataFrame, ranks: Sequence[int]) -> go.Figure:
    """Boxes over pruning step and rank, coloured by mean reward, each with its number of pulls; the fewer the fainter.

    A column ``interval`` is half of the mean's 95% interval.
    """
    figure = go.Figure()
    most = max(int(frame["pulls"].max()), 1) if len(frame) else 1
    interval = frame["interval"] if "interval" in frame else pd.Series(np.nan, frame.index)
    known = frame["reward"].dropna()
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    high = max(high, low + 0.01)  # rewards with small differences get similar colours
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
            "opacity": 1.0
            if np.isnan(row.reward)
            else _LEAST_OPACITY + (1 - _LEAST_OPACITY) * np.sqrt(row.pulls / most),
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
        textfont={"size": 11, "color": [_text_color(*each) for each in zip(shade, frame["pulls"] / most, strict=True)]},
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
                [
                    "never pulled" if np.isnan(r) else f"{r:.3f}" + ("" if np.isnan(half) else f" ± {half:.3f}")
                    for r, half in zip(frame["reward"], interval, strict=True)
                ],
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


def _text_color(shade: float, pulled: float) -> str:
    """Dark on bright boxes; grey, which is read on light and dark pages, on faint ones."""
    if _LEAST_OPACITY + (1 - _LEAST_OPACITY) * np.sqrt(pulled) < 0.6:
        return "#767676"
    return "#111" if shade > 0.55 else "#fff"
