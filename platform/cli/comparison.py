"""A comparison in the terminal: tables, and bars of the cost of the target."""

from collections.abc import Callable, Sequence

from slimfed.platform.cli.output import print_table, results
from slimfed.platform.comparison.course import Cost
from slimfed.platform.comparison.paired import Paired
from slimfed.platform.comparison.report import Comparison, GroupResult
from slimfed.platform.comparison.robustness import Robustness
from slimfed.platform.comparison.statistic import Statistic
from slimfed.platform.comparison.target import Target
from slimfed.platform.comparison.verdict import in_words
from slimfed.platform.format import energy, percent, seconds, size

_BAR = 40
_SHOWN: dict[Cost, Callable[[float | None], str]] = {
    "virtual_seconds": seconds,
    "wall_seconds": seconds,
    "bytes": size,
    "joules": energy,
    "memory_bytes": size,
}
_COLUMNS = {
    "name": "runs",
    "seeds": "seeds",
    "final": "QUALITY>",
    "sparsity": "sparsity>",
    "memory": "peak memory>",
    "reached": "reached>",
    "virtual_seconds": "virtual time>",
    "slower": "of fastest>",
    "wall_seconds": "wall time>",
    "bytes": "traffic>",
    "joules": "energy>",
}


def print_comparison(comparison: Comparison, *, regret: bool = False) -> None:
    """Print all tables and bars to standard output; ``regret``: also agents against the best fixed choice."""
    quality = comparison.quality.replace("_", " ")
    target = comparison.target
    title = "Runs" if target is None else f"Cost to {quality} {percent(target.value)} ({_origin(target)})"
    if target is not None and target.sparsity:
        title += f" at {percent(target.sparsity)} sparsity or more"
    columns = _COLUMNS | {"final": f"{quality}>"}
    print_table(title, columns, [_group_row(result) for result in comparison.groups])
    for line in bars(comparison):
        results().print(line, soft_wrap=True, markup=False)
    if any(result.budgets for result in comparison.groups):
        _print_budgets(comparison)
    if comparison.robustness:
        _print_robustness(comparison)
    if comparison.controls:
        _print_paired("Controls: time to the target, of the same agent's (above 1: learning pays)", comparison.controls)
    if regret:
        _print_paired("Regret: time to the target, of the best fixed choice's (below 1: it adapts)", comparison.regret)
    for remark in comparison.remarks:
        results().print(f"note: {remark}", soft_wrap=True, markup=False)
    if comparison.verdict is not None:
        words = in_words(comparison.verdict, comparison.quality, target)
        results().print(f"\n{words}", soft_wrap=True, markup=False, highlight=False)


def _origin(target: Target) -> str:
    """Where a target comes from; one that nobody gave is said to be so."""
    return f"no target was given: {target.origin}" if target.assumed else target.origin


def bars(comparison: Comparison) -> list[str]:
    """Lines with the virtual time to the target of each group, or "not reached"; empty if no group reached it."""
    longest = max((result.reached.mean or 0.0 for result in comparison.groups), default=0.0)
    if longest == 0.0:
        return []
    width = max(len(result.group.name) for result in comparison.groups)
    target = comparison.target
    lines = ["", f"virtual time to {'the target' if target is None else percent(target.value)}"]
    for result in comparison.groups:
        reached = result.reached
        filled = round(_BAR * (reached.mean or 0.0) / longest)
        figure = "not reached" if reached.mean is None else spread(reached, seconds)
        few = "" if reached.complete or reached.mean is None else f" ({_share(reached)} runs)"
        lines.append(f"  {result.group.name:<{width}}  {'█' * filled}{'·' * (_BAR - filled)}  {figure}{few}")
    return [*lines, ""]


def spread(statistic: Statistic, shown: Callable[[float | None], str]) -> str:
    """Mean, and the standard deviation over seeds if there is more than one; ``-`` if no run has a value."""
    mean = shown(statistic.mean)
    return mean if statistic.spread is None else f"{mean} ± {shown(statistic.spread)}"


def _group_row(result: GroupResult) -> dict[str, str]:
    reached = result.reached
    return {
        "name": result.group.name,
        "seeds": ", ".join(map(str, result.group.seeds)),
        "final": spread(result.final, percent),
        "sparsity": percent(result.sparsity.mean),
        "memory": size(result.memory.mean),
        "reached": _share(reached),
        "slower": "-" if result.slower is None else f"{result.slower:.2f}x",
        **{cost: spread(price, _SHOWN[cost]) for cost, price in result.prices.items()},
    }


def _print_budgets(comparison: Comparison) -> None:
    budgets = comparison.groups[0].budgets
    columns = {"name": "runs"} | {
        str(index): f"{_SHOWN[each.cost](each.budget)} {_BUDGET[each.cost]}>" for index, each in enumerate(budgets)
    }
    rows = [
        {"name": result.group.name}
        | {str(index): _under_budget(each.quality, each.sparsity) for index, each in enumerate(result.budgets)}
        for result in comparison.groups
    ]
    print_table(f"{comparison.quality.replace('_', ' ').capitalize()} under a budget", columns, rows)


_BUDGET: dict[Cost, str] = {
    "virtual_seconds": "virtual time",
    "bytes": "traffic",
    "memory_bytes": "memory a device",
}


def _under_budget(quality: Statistic, sparsity: Statistic) -> str:
    if quality.mean is None:
        return "nothing evaluated within"
    few = "" if quality.complete else f" ({_share(quality)} runs)"
    return f"{spread(quality, percent)} at {percent(sparsity.mean)} sparsity{few}"


def _print_robustness(comparison: Comparison) -> None:
    columns = {
        "undisturbed": "runs",
        "disturbance": "disturbance",
        "before": "undisturbed>",
        "after": "disturbed>",
        "change": "change, points>",
        "delay": "time to target>",
    }
    print_table("Robustness", columns, [_robustness_row(entry) for entry in comparison.robustness])


def _print_paired(title: str, entries: Sequence[Paired]) -> None:
    columns = {"group": "runs", "other": "against", "median": "median>", "ratios": "by seed", "missed": "not reached"}
    print_table(title, columns, [_paired_row(entry) for entry in entries])


def _paired_row(entry: Paired) -> dict[str, str]:
    return {
        "group": entry.group,
        "other": entry.other,
        "median": "-" if entry.median is None else f"{entry.median:.2f}x",
        "ratios": ", ".join(f"{seed}: {ratio:.2f}x" for seed, ratio in entry.ratios.items()) or "-",
        "missed": ", ".join(map(str, entry.missed)) or "-",
    }


def _robustness_row(entry: Robustness) -> dict[str, str]:
    def points(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:+.1f}"

    def times(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}x"

    change = points(entry.change.mean)
    if entry.change.spread is not None:
        change += f" ± {100 * entry.change.spread:.1f}"
    return {
        "undisturbed": entry.undisturbed,
        "disturbance": entry.disturbance,
        "before": spread(entry.undisturbed_quality, percent),
        "after": spread(entry.quality, percent),
        "change": change,
        "delay": spread(entry.delay, times) if entry.delay.values else "not reached",
    }


def _share(statistic: Statistic) -> str:
    return f"{len(statistic.values)} of {statistic.of}"
