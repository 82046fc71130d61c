"""The tables of agents, controls and fixed choices in benchmarks/README.md, from results/agent*.json."""

import math
import random
from statistics import fmean, median, quantiles
from typing import Any

from readme_table import put

_ONE = "fixed-4-20"
"""The fixed choice that a user could have made for all worlds: it is the best one at home links."""


def render(results: list[dict[str, Any]], name: str = "agents") -> None:
    """Write the table between the markers ``name``."""
    worlds = sorted({run["world"] for run in results if run["variant"] == "slimfed"}, key=_ORDER.index)
    lines = [
        "| world | best fixed choice by seed (rank-steps): seconds | `slimfed` / best fixed | `slimfed` / fixed 4-20 | "
        "`still` / `slimfed` | `shuffled` / `slimfed` |",
        "|---|---|---|---|---|---|",
    ]
    for world in worlds:
        best = {seed: _best(results, world, seed) for seed in _seeds(results)}
        told = ", ".join(f"{name.removeprefix('fixed-')}: {_short(time)}" for name, time in best.values() if name)
        against = [
            _ratios(results, world, "slimfed", {seed: time for seed, (_, time) in best.items()}),
            _ratios(results, world, "slimfed", _fixed(results, world, _ONE)),
            _ratios(results, world, "still", _own(results, world, "slimfed")),
            _ratios(results, world, "shuffled", _own(results, world, "slimfed")),
        ]
        lines.append(f"| {world} | {told} | " + " | ".join(against) + " |")
    lines += ["", _over_worlds(results, worlds)]
    if name == "agents":
        lines += _other_agents(results, worlds)
    put(name, "\n".join(lines))


def _over_worlds(results: list[dict[str, Any]], worlds: list[str]) -> str:
    """Geometric means over seeds and worlds, with intervals by drawing seeds again."""
    best = {world: {seed: _best(results, world, seed)[1] for seed in _seeds(results)} for world in worlds}
    slimfed = {world: _own(results, world, "slimfed") for world in worlds}
    pairs = {
        "`slimfed` / best fixed": (slimfed, best),
        "`still` / `slimfed`": ({world: _own(results, world, "still") for world in worlds}, slimfed),
        "`shuffled` / `slimfed`": ({world: _own(results, world, "shuffled") for world in worlds}, slimfed),
    }
    told = [f"{name} {_interval(one, other)}" for name, (one, other) in pairs.items()]
    return f"Over all worlds, geometric mean (95% interval, bootstrap over seeds): {'; '.join(told)}."


def _interval(one: dict[str, dict[int, float]], other: dict[str, dict[int, Any]]) -> str:
    by_seed: dict[int, list[float]] = {}
    for world, times in one.items():
        for seed, seconds in times.items():
            if other[world].get(seed):
                by_seed.setdefault(seed, []).append(math.log(seconds / other[world][seed]))
    groups, draw = list(by_seed.values()), random.Random(0)
    means = []
    for _ in range(_DRAWS):
        chosen = [ratio for group in draw.choices(groups, k=len(groups)) for ratio in group]
        means.append(math.exp(fmean(chosen)))
    cuts = quantiles(means, n=40)
    every = math.exp(fmean(ratio for group in groups for ratio in group))
    return f"{every:.2f} ({cuts[0]:.2f} to {cuts[-1]:.2f})"


def at(results: list[dict[str, Any]], target: float, sparsity: float) -> list[dict[str, Any]]:
    """The runs as if they had ended with a lower target than the one that they were made for."""
    return [_cut(run, target, sparsity) for run in results]


def _cut(run: dict[str, Any], target: float, sparsity: float) -> dict[str, Any]:
    slim = [share >= sparsity - 0.005 for share in run["sparsities"]]
    met = [
        ok and accuracy is not None and accuracy >= target for ok, accuracy in zip(slim, run["accuracies"], strict=True)
    ]
    rounds = met.index(True) + 1 if any(met) else len(met)
    after = {world: seconds[:rounds] for world, seconds in run["seconds_after"].items()}
    own = after[run["world"]][-1]
    return run | {"reached": any(met), "rounds": rounds, "seconds_after": after, "seconds": own, "target": target}


def _other_agents(results: list[dict[str, Any]], worlds: list[str]) -> list[str]:
    others = [["world", "`slimfed`", "`paced-random`", "`s-ucb`", "`oracle`", "best fixed"]]
    for world in worlds:
        row = [_own(results, world, name).get(1) for name in ("slimfed", "paced-random", "s-ucb", "oracle")]
        others.append([world, *map(_short, row), _short(_best(results, world, 1)[1])])
    table = [
        "| " + " | ".join(row) + " |" + ("\n|---|---|---|---|---|---|" if n == 0 else "")
        for n, row in enumerate(others)
    ]
    return ["", "Seed 1, seconds to the target:", "", *table]


_DRAWS = 5000
_ORDER = ["home", "fast", "moving", "phones"]


def _seeds(results: list[dict[str, Any]]) -> list[int]:
    return sorted({run["seed"] for run in results})


def _own(results: list[dict[str, Any]], world: str, variant: str) -> dict[int, float]:
    """Seconds by seed; of a run that did not reach the target, those that it lasted."""
    return {r["seed"]: r["seconds"] for r in results if r["world"] == world and r["variant"] == variant}


def _fixed(results: list[dict[str, Any]], world: str, variant: str) -> dict[int, float]:
    """Seconds by seed of a fixed choice, by the world's clock."""
    return {
        r["seed"]: r["seconds_after"][world][-1]
        for r in results
        if r["variant"] == variant and r["reached"] and world in r["seconds_after"]
    }


def _best(results: list[dict[str, Any]], world: str, seed: int) -> tuple[str, float | None]:
    names = {r["variant"] for r in results if r["variant"].startswith("fixed-")}
    times = {name: time for name in names if (time := _fixed(results, world, name).get(seed)) is not None}
    return min(times.items(), key=lambda item: item[1]) if times else ("", None)


def _ratios(results: list[dict[str, Any]], world: str, variant: str, to: dict[int, float | None]) -> str:
    """Median of the paired ratios, and each of them."""
    own = _own(results, world, variant)
    ratios = [own[seed] / time for seed, time in sorted(to.items()) if seed in own and time]
    listed = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    return f"{median(ratios):.2f} ({listed})" if ratios else "-"


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} s" if value >= 100 else f"{value:.1f} s"
