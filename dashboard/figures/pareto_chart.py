"""Quality against cost, with the Pareto front."""

import pandas as pd
import plotly.graph_objects as go

from slimfed.dashboard import format
from slimfed.dashboard.figures.style import RUN_COLORS, RUN_SIGNS, finish


def pareto(frame: pd.DataFrame, title: str) -> go.Figure:
    """Accuracy against the cost of a forward pass: a point for each evaluated round, the Pareto front as a line.

    ``frame``: ``run`` (name), ``round``, ``cost`` (share of the prunable parameters left), ``quality``, ``front``.
    """
    figure = go.Figure()
    for place, run in enumerate(frame["run"].unique()):
        rows, name = frame[frame["run"] == run], format.figure(run)
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
