"""Figures of a comparison for a paper: one kind a file, in the width of a column or of a page."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from slimfed.clients.errors import InputError
from slimfed.clients.plain_text import clean
from slimfed.platform.comparison.course import Course, Point
from slimfed.platform.comparison.report import Comparison, GroupResult
from slimfed.platform.format import percent, time_unit

Kind = Literal["accuracy", "cost", "pareto"]
Size = Literal["column", "page"]
Format = Literal["pdf", "svg", "png"]

KINDS: tuple[Kind, ...] = get_args(Kind)
SIZES: tuple[Size, ...] = get_args(Size)
FORMATS: tuple[Format, ...] = get_args(Format)

# Widths of IEEE's and ACM's two-column pages, in inches.
_WIDTH: dict[Size, float] = {"column": 3.5, "page": 7.16}
_HEIGHT: dict[Size, float] = {"column": 2.4, "page": 3.2}
_BAR_INCHES = 0.28
# Okabe and Ito's palette, which colour-blind people can tell apart; line styles tell them apart in grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":")
_STYLE: Any = {
    "font.family": "serif",
    "font.size": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,  # fonts that publishers take
    "svg.fonttype": "none",
    "svg.hashsalt": "slimfed",
}


@dataclass(frozen=True)
class Paper:
    """Which figures are written, and how. ``dpi``: of .png files."""

    kinds: tuple[Kind, ...]
    size: Size = "column"
    dpi: int = 300
    format: Format = "pdf"

    def files(self) -> dict[Kind, Path]:
        """The file of each figure, in the working directory."""
        return {kind: Path(f"{kind}.{self.format}") for kind in self.kinds}


def write_figures(comparison: Comparison, paper: Paper) -> list[Path]:
    """Write the figures; returns their files. Raises ``InputError`` if one cannot be written."""
    written = []
    for kind, path in paper.files().items():
        content = io.BytesIO()
        metadata = {"png": {"Software": ""}, "pdf": {"CreationDate": None}}.get(paper.format, {"Date": None})
        with rc_context(_STYLE):
            draw(comparison, kind, paper.size).savefig(content, format=paper.format, dpi=paper.dpi, metadata=metadata)
        try:
            path.write_bytes(content.getvalue())
        except OSError as error:
            raise InputError(f"--figure {kind}: {str(path)!r} cannot be written ({error.strerror})") from None
        written.append(path)
    return written


def draw(comparison: Comparison, kind: Kind, size: Size) -> Figure:
    """One figure in the width of ``size``; call it within the style of a paper."""
    bars = kind == "cost"
    height = 0.6 + _BAR_INCHES * len(comparison.groups) if bars else _HEIGHT[size]
    figure = Figure(figsize=(_WIDTH[size], height), layout="constrained")
    axes = figure.subplots()
    {"accuracy": _accuracy, "cost": _cost, "pareto": _pareto}[kind](axes, comparison)
    if not bars and len(comparison.groups) > 1:
        axes.legend(frameon=False, handlelength=2.2)
    return figure


def _accuracy(axes: Axes, comparison: Comparison) -> None:
    """The mean over seeds after each evaluation, over virtual time; the band is one standard deviation."""
    unit = time_unit(max((c.last.virtual_seconds for c in _courses(comparison) if c.last), default=0.0))
    for index, result in enumerate(comparison.groups):
        columns = _by_round(result.group.courses)
        at = [_mean([point.virtual_seconds for point in each]) / unit.seconds for each in columns]
        means = [100 * _mean([point.quality for point in each]) for each in columns]
        spreads = [100 * _spread([point.quality for point in each]) for each in columns]
        axes.plot(at, means, _DASHES[index % 4], color=_colour(index), linewidth=1.2, label=_name(result))
        if any(spreads):
            low, high = ([m + sign * s for m, s in zip(means, spreads, strict=True)] for sign in (-1, 1))
            axes.fill_between(at, low, high, color=_colour(index), alpha=0.2, linewidth=0)
    if comparison.target is not None and not comparison.target.assumed:
        axes.axhline(100 * comparison.target.value, color="grey", linestyle=":", linewidth=0.8)
    axes.set_xlabel(f"Virtual time ({unit.name})")
    axes.set_ylabel(f"{_quality(comparison)} (%)")


def _cost(axes: Axes, comparison: Comparison) -> None:
    """Virtual time to the target, a named bar a group; whiskers are one standard deviation."""
    longest = max((result.reached.mean or 0.0 for result in comparison.groups), default=0.0)
    unit = time_unit(longest)
    for index, result in enumerate(comparison.groups):
        reached = result.reached
        if reached.mean is None:
            axes.text(0, index, " not reached", va="center", fontsize=7)
            continue
        spread = None if reached.spread is None else reached.spread / unit.seconds
        axes.barh(index, reached.mean / unit.seconds, xerr=spread, color=_colour(index), height=0.6, capsize=2)
        few = "" if reached.complete else f" ({len(reached.values)} of {reached.of})"
        at = (reached.mean + (reached.spread or 0.0)) / unit.seconds
        axes.text(at, index, f" {reached.mean / unit.seconds:.3g}{few}", va="center", fontsize=7)
    axes.set_yticks(range(len(comparison.groups)), [_name(result) for result in comparison.groups])
    axes.set_ylim(len(comparison.groups) - 0.5, -0.5)
    axes.margins(x=0.18)
    axes.set_xlim(left=0)
    to = f" to {percent(comparison.target.value)}" if comparison.target else ""
    axes.set_xlabel(f"Virtual time{to} ({unit.name})")


def _pareto(axes: Axes, comparison: Comparison) -> None:
    """Final quality over the share of the prunable parameters that is left; whiskers are one standard deviation."""
    for index, result in enumerate(comparison.groups):
        if result.final.mean is None or result.sparsity.mean is None:
            continue
        axes.errorbar(
            100 * (1 - result.sparsity.mean),
            100 * result.final.mean,
            yerr=None if result.final.spread is None else 100 * result.final.spread,
            xerr=None if result.sparsity.spread is None else 100 * result.sparsity.spread,
            marker="os^Dv<>"[index % 7],
            linestyle="none",
            color=_colour(index),
            capsize=2,
            markersize=4,
            label=_name(result),
        )
    axes.set_xlabel("Prunable parameters left (%)")
    axes.set_ylabel(f"{_quality(comparison)} (%)")


def _by_round(courses: Sequence[Course]) -> list[list[Point]]:
    """The points of the rounds that every run has evaluated, oldest first."""
    by_run = [{point.round: point for point in course.points} for course in courses]
    common = sorted(set.intersection(*(set(each) for each in by_run))) if by_run else []
    return [[each[number] for each in by_run] for number in common]


def _courses(comparison: Comparison) -> list[Course]:
    return [course for result in comparison.groups for course in result.group.courses]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _spread(values: Sequence[float]) -> float:
    """Sample standard deviation; 0 for one value."""
    if len(values) < 2:
        return 0.0
    mean = _mean(values)
    return float((sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5)


def _name(result: GroupResult) -> str:
    """A group's name; a dollar sign would begin a formula, and a leading underscore hide it from a legend."""
    return clean(result.group.name, 60).replace("$", r"\$").lstrip("_")


def _quality(comparison: Comparison) -> str:
    return comparison.quality.replace("_", " ").capitalize()


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]
