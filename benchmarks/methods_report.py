"""The tables of methods_table.py as Markdown."""

from collections.abc import Sequence
from typing import Any

from slimfed.platform.comparison.course import Point, cost_to_target, under_budget
from slimfed.platform.comparison.statistic import Statistic
from slimfed.platform.job import presets

Results = dict[str, Any]

PRESETS = ("fedspine", "fedit", "hetlora", "flexlora", "flora", "fedmp", "oneshot", "pat", "sora", "sparse")
BANDITS = ("s-ucb", "e-ucb", "thompson", "random", "fixed", "oracle")
SPARSITIES = (0.3, 0.5, 0.7)
CRITERIA = (
    ("fedspine", ""), ("fedspine", "lora-gradient"), ("fedspine", "magnitude"),
    ("fedmp", ""), ("fedmp", "activation"), ("oneshot", ""), ("oneshot", "activation"),
    ("fedit", ""), ("fedit", "activation"),
)  # fmt: skip
"""Preset and criterion; empty: its own."""
ABLATED = 0.5
"""The sparsity at which agents and criteria are compared; the first of ``BANDITS`` is fedspine's own."""
_TARGET_SHARE = 0.9
"""Of the unpruned federated accuracy."""
_METHODS = (
    "sparsity", "method", "pruned global model", "devices' own models", "virtual seconds to target",
    "and as slim as asked", "times fedspine's", "accuracy after as long as fedspine's run",
    "virtual seconds in all", "GB sent", "peak memory of a device, MB", "seeds",
)  # fmt: skip


def render(results: Results) -> dict[str, str]:
    """The tables as Markdown by their names in the README."""
    runs = [result for result in results["runs"] if "error" not in result]
    failed = [result for result in results["runs"] if "error" in result]
    unpruned = _where(runs, table="unpruned")
    targets = {
        dataset: _TARGET_SHARE * _mean(_where(unpruned, dataset=dataset), "accuracy")
        for dataset in dict.fromkeys(run["cell"]["dataset"] for run in unpruned)
    }
    return {
        "methods": "\n\n".join(_methods(runs, failed, dataset, target) for dataset, target in targets.items()),
        "bandits": "\n\n".join(_bandits(runs, dataset, target) for dataset, target in targets.items()),
        "importances": "\n\n".join(_importances(runs, dataset, target) for dataset, target in targets.items()),
        "methods-machine": _machine(results),
    }


def _methods(runs: list[Results], failed: list[Results], dataset: str, target: float) -> str:
    dense = _where(runs, table="unpruned", dataset=dataset)
    lines = [f"**{dataset}**, unpruned: {_percent(dense, 'accuracy')}; target {target:.1%}", "", *_head(_METHODS)]
    for sparsity in SPARSITIES:
        own = _where(runs, table="methods", dataset=dataset, sparsity=sparsity, preset="fedspine")
        ours, budget = _time(own, target, sparsity), _mean(own, "virtual_seconds")
        for preset in PRESETS:
            cells = {"table": "methods", "dataset": dataset, "sparsity": sparsity, "preset": preset}
            rows, lost = _where(runs, **cells), len(_where(failed, **cells))
            if not rows:
                continue
            slim = _time(rows, target, sparsity)
            columns = [
                f"{_mean(rows, 'sparsity'):.1%}",
                preset + (f" ({lost} failed)" if lost else ""),
                _percent(rows, "accuracy"),
                _percent(rows, "device_accuracy_mean"),
                _seconds(_time(rows, target)),
                _seconds(slim),
                f"{slim.mean / ours.mean:.2f}" if slim.complete and slim.mean and ours.mean else "-",
                _spread(_after(rows, budget)),
                f"{_mean(rows, 'virtual_seconds'):.0f}",
                f"{_mean(rows, 'bytes') / 1e9:.2f}",
                f"{_mean(rows, 'peak_memory_bytes') / 1e6:.0f}",
                str(len(rows)),
            ]
            lines.append(_row(columns))
    return "\n".join(lines)


def _bandits(runs: list[Results], dataset: str, target: float) -> str:
    rows = _where(runs, table="bandits", dataset=dataset)
    rows += [
        {**run, "cell": {**run["cell"], "bandit": BANDITS[0]}}
        for run in _where(runs, table="methods", dataset=dataset, preset="fedspine", sparsity=ABLATED)
        if run["cell"]["seed"] in _seeds(rows)
    ]
    shared = min((r["virtual_seconds"] for r in rows), default=0.0)
    lines = [
        f"**{dataset}**, fedspine at 50% with another agent; target {target:.1%}",
        "",
        *_head(
            (
                "agent",
                "virtual seconds to target",
                f"accuracy after {shared:.0f} virtual seconds",
                "accuracy in the end",
                "virtual seconds in all",
            )
        ),
    ]
    for bandit in BANDITS:
        own = _where(rows, bandit=bandit)
        if own:
            columns = [bandit, _seconds(_time(own, target)), _spread(_after(own, shared)), _percent(own, "accuracy")]
            lines.append(_row([*columns, f"{_mean(own, 'virtual_seconds'):.0f}"]))
    return "\n".join(lines)


def _importances(runs: list[Results], dataset: str, target: float) -> str:
    columns = ("method", "importance", "pruned global model", "devices' own models", "virtual seconds, slim at target")
    lines = [f"**{dataset}**, at 50%; target {target:.1%}", "", *_head(columns)]
    seeds = _seeds(_where(runs, table="importances", dataset=dataset))
    for preset, criterion in CRITERIA:
        table = "importances" if criterion else "methods"
        rows = _where(runs, table=table, dataset=dataset, preset=preset, importance=criterion, sparsity=ABLATED)
        rows = [row for row in rows if row["cell"]["seed"] in seeds]
        if rows:
            accuracies = [_percent(rows, "accuracy"), _percent(rows, "device_accuracy_mean")]
            slim = _seconds(_time(rows, target, ABLATED))
            lines.append(
                _row([preset, criterion or presets.PRESETS[preset].fields["method"]["importance"], *accuracies, slim])
            )
    return "\n".join(lines)


def _machine(results: Results) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    cards = ", ".join(sorted({r["processor"] for r in results["runs"] if "error" not in r}))
    seeds = ", ".join(str(seed) for seed in sorted({r["cell"]["seed"] for r in results["runs"]}))
    return f"{len(results['runs'])} runs, seeds {seeds}; {cards}; {versions}."


def _where(runs: list[Results], **cell: Any) -> list[Results]:
    return [r for r in runs if all(r["cell"][name] == value for name, value in cell.items())]


def _seeds(runs: list[Results]) -> set[int]:
    """Seeds of these runs: an ablation compares with its own seeds alone."""
    return {run["cell"]["seed"] for run in runs}


def _points(result: Results) -> list[Point]:
    """The evaluated rounds of a run as a course."""
    columns = zip(
        result["accuracies"], result["sparsities"], result["virtual_seconds_after"], result["bytes_after"], strict=True
    )
    return [
        Point(number, accuracy, sparsity, virtual, 0.0, sent, None, None)
        for number, (accuracy, sparsity, virtual, sent) in enumerate(columns, 1)
        if accuracy is not None
    ]


def _time(rows: list[Results], target: float, sparsity: float = 0.0) -> Statistic:
    """Virtual seconds until the global model is as good as ``target``, and its fleet as slim as ``sparsity``."""
    return Statistic.over(cost_to_target(_points(row), "virtual_seconds", target, sparsity) for row in rows)


def _after(rows: list[Results], seconds: float) -> Statistic:
    """Accuracy of the last round that ends within ``seconds`` of virtual time."""
    found = [p.quality for r in rows if (p := under_budget(_points(r), "virtual_seconds", seconds)) is not None]
    return Statistic(tuple(found), len(rows))


def _mean(rows: list[Results], name: str) -> float:
    return Statistic.over(row[name] for row in rows).mean or 0.0


def _percent(rows: list[Results], name: str) -> str:
    return _spread(Statistic.over(row[name] for row in rows))


def _spread(values: Statistic) -> str:
    """Mean, and the deviation where there are several runs."""
    if values.mean is None:
        return "-"
    return f"{values.mean:.1%}" + (f" ± {100 * values.spread:.1f}" if values.spread is not None else "")


def _seconds(values: Statistic) -> str:
    """Mean, and the deviation where there are several; how many runs reached the target, if not all did."""
    if values.mean is None:
        return "not reached"
    text = f"{values.mean:.1f}" + (f" ± {values.spread:.1f}" if values.spread is not None else "")
    return text if values.complete else f"{text} ({len(values.values)} of {values.of} reached it)"


def _head(columns: tuple[str, ...]) -> list[str]:
    return [_row(columns), "|" + "---|" * len(columns)]


def _row(columns: Sequence[str]) -> str:
    return "| " + " | ".join(columns) + " |"
