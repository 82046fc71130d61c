"""The table of agents, controls and fixed choices in benchmarks/README.md, from results/agent.json."""

from statistics import median
from typing import Any

from readme_table import put

_ONE = "fixed-4-20"
"""The fixed choice that a user could have made for all worlds: it is the best one at home links."""


def render(results: list[dict[str, Any]]) -> None:
    """Write the table."""
    worlds = sorted({world for run in results for world in run["seconds_after"]}, key=_ORDER.index)
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
    others = [["world", "`slimfed`", "`paced-random`", "`s-ucb`", "`oracle`", "best fixed"]]
    for world in worlds:
        row = [_own(results, world, name).get(1) for name in ("slimfed", "paced-random", "s-ucb", "oracle")]
        others.append([world, *map(_short, row), _short(_best(results, world, 1)[1])])
    lines += ["", "Seed 1, seconds to the target:", ""]
    lines += [
        "| " + " | ".join(row) + " |" + ("\n|---|---|---|---|---|---|" if n == 0 else "")
        for n, row in enumerate(others)
    ]
    put("agents", "\n".join(lines))


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
