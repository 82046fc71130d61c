"""The comparison as one JSON object, for ``--json`` and for other programs."""

from typing import Any

from slimfed.platform.comparison.paired import Paired
from slimfed.platform.comparison.report import Comparison, GroupResult
from slimfed.platform.comparison.robustness import Robustness
from slimfed.platform.comparison.statistic import Statistic
from slimfed.platform.comparison.verdict import in_words


def comparison_as_json(comparison: Comparison) -> dict[str, Any]:
    """Everything that the tables show, with the value of every run behind each mean."""
    target = comparison.target
    return {
        "quality": comparison.quality,
        "target": None if target is None else vars(target),
        "groups": [_group(result) for result in comparison.groups],
        "robustness": [_robustness(entry) for entry in comparison.robustness],
        "controls": [_paired(entry) for entry in comparison.controls],
        "regret": [_paired(entry) for entry in comparison.regret],
        "remarks": list(comparison.remarks),
        "verdict": _verdict(comparison),
    }


def _verdict(comparison: Comparison) -> dict[str, Any] | None:
    found = comparison.verdict
    if found is None:
        return None
    return {
        "leader": found.leader.name,
        "other": found.other.name,
        "measure": found.measure,
        "lead": found.lead,
        "seeds": list(found.seeds),
        "interval": None if found.interval is None else list(found.interval),
        "more_than_noise": found.clear,
        "another_seed_seconds": found.seed_seconds,
        "words": in_words(found, comparison.quality, comparison.target),
    }


def _group(result: GroupResult) -> dict[str, Any]:
    return {
        "name": result.group.name,
        "differences": dict(result.group.differences),
        "runs": [course.run_id for course in result.group.courses],
        "seeds": list(result.group.seeds),
        "final": _statistic(result.final),
        "best": _statistic(result.best),
        "sparsity": _statistic(result.sparsity),
        "peak_memory_bytes": _statistic(result.memory),
        "cost_to_target": {cost: _statistic(price) for cost, price in result.prices.items()},
        "slower_than_fastest": result.slower,
        "under_budget": [
            {
                "cost": each.cost,
                "budget": each.budget,
                "quality": _statistic(each.quality),
                "sparsity": _statistic(each.sparsity),
            }
            for each in result.budgets
        ],
    }


def _robustness(entry: Robustness) -> dict[str, Any]:
    return {
        "undisturbed": entry.undisturbed,
        "disturbance": entry.disturbance,
        "quality": _statistic(entry.quality),
        "undisturbed_quality": _statistic(entry.undisturbed_quality),
        "change": _statistic(entry.change),
        "delay": _statistic(entry.delay),
    }


def _paired(entry: Paired) -> dict[str, Any]:
    return {
        "group": entry.group,
        "other": entry.other,
        "median": entry.median,
        "ratios": {str(seed): ratio for seed, ratio in entry.ratios.items()},
        "others": {str(seed): name for seed, name in entry.others.items()},
        "missed": list(entry.missed),
    }


def _statistic(statistic: Statistic) -> dict[str, Any]:
    return {
        "mean": statistic.mean,
        "spread": statistic.spread,
        "values": list(statistic.values),
        "of": statistic.of,
    }
