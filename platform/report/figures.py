"""Figures of a report as SVG, which the page holds: curves over rounds, costs, and what is left of each layer."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from slimfed.platform.report.content import Content
from slimfed.platform.standing import REFERENCE_WORDS

_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#8C8C8C"
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "slimfed",
}
_SIZE = (5.2, 2.9)
_HEAD = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)


def quality(content: Content) -> str:
    """Accuracy in per cent, or perplexity, of the global model by round, with what it is judged by."""
    figure, axes = _begin()
    rows = content.evaluations
    if content.run.task == "causal-lm" and content.run.accuracy_normalised is None:
        axes.plot(
            *_pairs(rows, lambda row: math.exp(min(row.loss, 700.0))), "o-", color=_BLUE, ms=3, label="global model"
        )
        axes.set_yscale("log")
        axes.set_ylabel("Perplexity")
    else:
        axes.plot(*_pairs(rows, lambda row: 100 * row.accuracy), "o-", color=_BLUE, ms=3, label="global model")
        own = [row for row in content.rounds if row.device_accuracy_mean is not None]
        places = [row.round for row in own], [100 * row.device_accuracy_mean for row in own]
        axes.plot(*places, "s--", color=_ORANGE, ms=3, label="devices' own models, mean")
        _references(axes, content.standing.references)
        axes.set_ylabel("Accuracy (%)")
    return _svg(figure, axes, content)


def loss(content: Content) -> str:
    """Loss in nats of the global model and of the devices, by round."""
    figure, axes = _begin()
    axes.plot(*_pairs(content.evaluations, lambda row: row.loss), "o-", color=_BLUE, ms=3, label="global model, test")
    trained = [row for row in content.rounds if row.train_loss is not None]
    places = [row.round for row in trained], [row.train_loss for row in trained]
    axes.plot(*places, "s--", color=_ORANGE, ms=3, label="devices, training")
    axes.set_ylabel("Loss (nats)")
    return _svg(figure, axes, content)


def traffic(content: Content) -> str:
    """Megabytes of each round, both ways."""
    figure, axes = _begin()
    places = [row.round for row in content.rounds]
    down = [row.bytes_down / 1e6 for row in content.rounds]
    axes.bar(places, down, color=_BLUE, label="sent")
    axes.bar(places, [row.bytes_up / 1e6 for row in content.rounds], bottom=down, color=_GREEN, label="received")
    axes.set_ylabel("Traffic (MB)")
    return _svg(figure, axes, content)


def structure(content: Content) -> str:
    """Share of the units of each layer that the devices have kept, in per cent."""
    figure, axes = _begin()
    kinds = list(dict.fromkeys(block.kind for block in content.blocks))
    for place, kind in enumerate(kinds):
        blocks = [block for block in content.blocks if block.kind == kind]
        wide = 0.8 / len(kinds)
        places = [block.layer + (place - (len(kinds) - 1) / 2) * wide for block in blocks]
        shares = [100 * block.kept / block.units for block in blocks]
        axes.bar(places, shares, wide, color=(_BLUE, _GREEN, _ORANGE)[place % 3], label=KIND_WORDS.get(kind, kind))
    axes.set_ylabel("Kept (% of units)")
    axes.set_xlabel("Layer")
    axes.set_ylim(0, 118)  # room for the legend
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, loc="upper right")
    return _written(figure)


KIND_WORDS = {"attention": "attention heads", "ffn": "FFN channels"}
"""Kinds of blocks in words."""


def _begin() -> tuple[Figure, Axes]:
    with rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        return figure, figure.add_subplot()


def _pairs(rows: Sequence[Any], value: Any) -> tuple[list[int], list[float]]:
    return [row.round for row in rows], [value(row) for row in rows]


def _references(axes: Axes, references: Mapping[str, float]) -> None:
    for name, share in references.items():
        axes.axhline(100 * share, color=_GREY, ls=":", lw=1)
        axes.annotate(
            f"{REFERENCE_WORDS[name]} {100 * share:.1f}%",
            (1, 100 * share),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=7,
            color="#555555",
        )


def _svg(figure: Figure, axes: Axes, content: Content) -> str:
    axes.set_xlabel("Round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(frameon=False, fontsize=8)
    return _written(figure)


def _written(figure: Figure) -> str:
    """The figure as an element of a page, without the head and the metadata of a file."""
    content = io.StringIO()
    with rc_context(_STYLE):
        figure.savefig(content, format="svg", metadata={"Date": None})
    return _METADATA.sub("", _HEAD.sub("", content.getvalue()))
