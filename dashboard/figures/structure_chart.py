"""Kept units of the model by layer."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from slimfed.dashboard.figures.style import colorbar, finish, title_below


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
