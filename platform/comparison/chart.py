"""The comparison as a chart: quality over virtual time on the left, cost of the target on the right."""

import html
import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from slimfed.clients.errors import InputError
from slimfed.clients.plain_text import clean
from slimfed.platform.comparison.report import Comparison, GroupResult
from slimfed.platform.format import percent

FORMATS = (".svg", ".png", ".pdf", ".html")
# Okabe and Ito's palette, which colour-blind people can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")


def check_format(path: Path) -> None:
    """Raises ``InputError`` for an unknown file format, or a missing folder."""
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"--chart {str(path)!r}: must end in {', '.join(FORMATS)}")
    if not path.absolute().parent.is_dir():
        raise InputError(f"--chart {str(path)!r}: there is no folder {str(path.absolute().parent)!r}")


def write_chart(comparison: Comparison, path: Path) -> None:
    """Write the chart in the format of the file's name. Raises ``InputError`` if it cannot be written."""
    check_format(path)
    figure = draw(comparison)
    content = io.BytesIO()
    kind = path.suffix.lower().removeprefix(".")
    # Without a date, and with names that derive from the content, the same comparison is the same file.
    metadata = {"png": {"Software": ""}, "pdf": {"CreationDate": None}}.get(kind, {"Date": None})
    with rc_context({"svg.hashsalt": "slimfed", "svg.fonttype": "none"}):
        figure.savefig(content, format="svg" if kind == "html" else kind, metadata=metadata)
    data = content.getvalue()
    try:
        path.write_bytes(_page(comparison, data) if kind == "html" else data)
    except OSError as error:
        raise InputError(f"--chart {str(path)!r}: cannot be written ({error.strerror})") from None


def draw(comparison: Comparison) -> Figure:
    """The figure, of a size that fits its groups."""
    groups = comparison.groups
    figure = Figure(figsize=(12, 4.5 + 0.25 * len(groups)), layout="constrained")
    courses, prices = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_courses(courses, comparison)
    _draw_prices(prices, groups, comparison)
    figure.legend(loc="outside lower left", fontsize=8, frameon=False)
    return figure


def _draw_courses(axes: Axes, comparison: Comparison) -> None:
    for index, result in enumerate(comparison.groups):
        for place, course in enumerate(result.group.courses):
            axes.plot(
                [point.virtual_seconds for point in course.points],
                [point.quality for point in course.points],
                color=_colour(index),
                marker=".",
                linewidth=1.2,
                alpha=0.8,
                label=None if place else _label(index, result.group.name),
            )
    if comparison.target is not None:
        label = "90% of the best" if comparison.target.assumed else "target"
        axes.axhline(comparison.target.value, color="grey", linestyle="--", linewidth=1, label=label)
    axes.set_xlabel("virtual seconds")
    axes.set_ylabel(comparison.quality.replace("_", " "))
    axes.grid(alpha=0.3)


def _draw_prices(axes: Axes, groups: Sequence[GroupResult], comparison: Comparison) -> None:
    for index, result in enumerate(groups):
        reached = result.reached
        if reached.mean is None:
            axes.text(0, index, "  not reached", va="center", fontsize=8)
        else:
            axes.barh(index, reached.mean, xerr=reached.spread, color=_colour(index), height=0.6, capsize=3)
            if not reached.complete:
                axes.text(0, index, f"  {len(reached.values)} of {reached.of} runs", va="center", fontsize=8)
    axes.set_yticks(range(len(groups)), [str(index + 1) for index in range(len(groups))])
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xlim(left=0)
    target = f" to {percent(comparison.target.value)}" if comparison.target else ""
    axes.set_xlabel(f"virtual seconds{target}")
    axes.grid(alpha=0.3, axis="x")


def _label(index: int, name: str) -> str:
    """A group's entry in the legend; a dollar sign would begin a formula."""
    return f"{index + 1}: {clean(name, 200)}".replace("$", r"\$")


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]


def _page(comparison: Comparison, svg: bytes) -> bytes:
    """A self-contained HTML page."""
    title = f"{comparison.quality.replace('_', ' ')} of {len(comparison.groups)} groups of runs"
    head = f'<!doctype html><meta charset="utf-8"><title>{html.escape(title)}</title>'
    return head.encode() + svg[svg.index(b"<svg") :]
