"""The table of a comparison in LaTeX, with booktabs."""

from collections.abc import Callable

from slimfed.platform.comparison.report import Comparison, GroupResult
from slimfed.platform.comparison.statistic import Statistic
from slimfed.platform.format import percent, time_unit

_ESCAPED = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def latex_table(comparison: Comparison) -> str:
    """A table with a line for each group: means, and ± the standard deviation over seeds; the best quality is bold.

    Needs the package booktabs.
    """
    unit = time_unit(max((result.reached.mean or 0.0 for result in comparison.groups), default=0.0))
    best = max((result.final.mean for result in comparison.groups if result.final.mean is not None), default=None)
    quality, target = comparison.quality.replace("_", " "), comparison.target
    to = f" to {escaped(percent(target.value))}" if target else ""
    head = ["", "seeds", rf"{quality} (\%)", r"sparsity (\%)", f"time{to} ({unit.name})", "traffic (MB)", "energy (kJ)"]
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{tabular}{lrrrrrr}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *(_line(result, best, unit.seconds) for result in comparison.groups),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    if target is not None and target.assumed:
        lines.append(f"% no target was given: {target.origin}")
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """``text`` with LaTeX's own characters escaped."""
    return "".join(_ESCAPED.get(letter, letter) for letter in text)


def _line(result: GroupResult, best: float | None, unit: float) -> str:
    final = _figure(result.final, lambda value: f"{100 * value:.1f}")
    cells = [
        escaped(result.group.name),
        str(len(set(result.group.seeds))),
        rf"\textbf{{{final}}}" if result.final.mean is not None and result.final.mean == best else final,
        _figure(result.sparsity, lambda value: f"{100 * value:.1f}"),
        _reached(result.reached, lambda value: f"{value / unit:.3g}"),
        _reached(result.prices["bytes"], lambda value: f"{value / 1e6:.3g}"),
        _reached(result.prices["joules"], lambda value: f"{value / 1e3:.3g}"),
    ]
    return " & ".join(cells) + r" \\"


def _reached(statistic: Statistic, written: Callable[[float], str]) -> str:
    """With the number of runs that reached the target, if not all did."""
    few = "" if statistic.complete or statistic.mean is None else f" ({len(statistic.values)}/{statistic.of})"
    return _figure(statistic, written) + few


def _figure(statistic: Statistic, written: Callable[[float], str]) -> str:
    if statistic.mean is None:
        return "--"
    spread = "" if statistic.spread is None else rf" $\pm$ {written(statistic.spread)}"
    return written(statistic.mean) + spread
