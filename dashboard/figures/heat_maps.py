"""Heat maps of sparsity and rank by device and round."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from slimfed.dashboard import format
from slimfed.dashboard.figures.style import colorbar, finish, folded, round_axis, title_below


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


def _heat_map(grid: pd.DataFrame, values: np.ndarray, hover: str) -> go.Figure:
    """Rows from top to bottom in the order of ``grid``, named by class in the middle of each class."""
    names = grid.index.get_level_values("class")
    figure = go.Figure(
        go.Heatmap(
            x=list(grid.columns),
            y=[f"device {d}" if d != "mean" else f"mean of {format.figure(c)}" for c, d in grid.index],
            z=values,
            hovertemplate=f"%{{y}}, round %{{x}}: {hover}<extra></extra>",
            xgap=0,
            ygap=0,
        )
    )
    middles, edges, start = [], [], 0
    for name in names.unique():
        count = int((names == name).sum())
        middles.append((start + (count - 1) / 2, folded(format.figure(name))))
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


def _stepped(scale: str, count: int) -> list[list[object]]:
    """A colour scale of ``count`` flat steps."""
    places = [0.5] if count == 1 else list(np.linspace(0, 1, count))
    colors = sample_colorscale(scale, places)
    return [[edge / count, color] for i, color in enumerate(colors) for edge in (i, i + 1)]
