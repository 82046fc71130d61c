"""Time to a target accuracy where a round asks a part of the fleet, and what a round of 1% of 10,000 devices costs.

    python benchmarks/participation.py [--out benchmarks/results/participation.json]
    python benchmarks/participation.py --render      # only the README's table again, from the results

The demo's world at half its size: 40 Jetsons, the built-in encoder and commands, 12 rounds, the preset `slimfed`; all
devices, a half and a fifth of them a round by three selections. Each run is computed in a process of its own, and its
seconds are those of the virtual clock. All have as many rounds: a smaller part of the fleet learns from less text a
round. The cost of a round of a large fleet is measured by `growth.py`.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from machine import load, machine, words
from own_process import keep, measure_in_own_process, tell
from readme_table import put

_HERE = Path(__file__).parent
_RESULTS = _HERE / "results" / "participation.json"
_TARGETS = (0.5, 0.65, 0.75)
_SEEDS = (7,)
_SETS = (
    "fleet.devices=40 training.rounds=12 bandit.local_steps=[5,10] evaluation.devices=0 evaluation.examples=400 "
    "evaluation.device_examples=20 engine.name=cohort engine.cohort_size=4 engine.dtype=fp32 engine.workers=1"
)
_WORLDS: tuple[tuple[float | str, str], ...] = (
    ("all", "random"),
    *((share, name) for share in (0.5, 0.2) for name in ("random", "oort", "fast-first")),
)
_FLEET, _SHARE, _ROUNDS = 10_000, 0.01, 4


def run(amount: float | str, selection: str, seed: int) -> dict[str, Any]:
    """Compute one run in this process; its rounds, and when it reached the target."""
    import slimfed

    share = [f"fleet.participation={amount}", f"fleet.selection={selection}", f"seed={seed}"]
    with tempfile.TemporaryDirectory() as home:
        found = slimfed.run(set=[*_SETS.split(), *share], runtime="local", progress=False, home=home)
        rounds = found.rounds.reset_index()
    course = [
        {"round": int(row.round), "clock": row.virtual_clock, "accuracy": row.accuracy, "asked": int(row.asked)}
        for row in rounds.itertuples()
    ]
    return {
        "participation": amount,
        "selection": selection,
        "seed": seed,
        "status": found.status,
        "seconds": course[-1]["clock"],
        "accuracy": course[-1]["accuracy"],
        "bytes": int(rounds["bytes_up"].sum() + rounds["bytes_down"].sum()),
        "devices_sparsity": float(rounds["sparsity"].iloc[-1]),
        "sparsity": float(rounds["global_sparsity"].iloc[-1]),
        "course": course,
    }


def growth() -> dict[str, Any]:
    """Seconds and memory of a round of a small part of a large fleet, in this process."""
    from growth import measure

    with tempfile.TemporaryDirectory() as home:
        return measure(_FLEET, _ROUNDS, Path(home), [f"fleet.participation={_SHARE}"]) | {"participation": _SHARE}


def main() -> None:
    """Measure each world in a process of its own, keep the results, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=_RESULTS)
    parser.add_argument("--render", action="store_true", help="only write the README's table")
    parser.add_argument("--one", help="measure one world, print JSON (used by this script)")
    options = parser.parse_args()
    if options.one:
        given = json.loads(options.one)
        tell(run(*given) if given else growth())
        return
    if not options.render:
        seen = machine(("slimfed", "torch", "transformers", "flwr"))
        found: dict[str, Any] = {"machine": seen, "load": [], "sets": _SETS, "runs": []}
        for seed in _SEEDS:
            for amount, selection in _WORLDS:
                found["load"].append(load())
                found["runs"].append(measure_in_own_process(__file__, [amount, selection, seed]))
                keep(options.out, found)
        found["load"].append(load())
        found["growth"] = measure_in_own_process(__file__, [])
        keep(options.out, found)
    put("participation", table(json.loads(options.out.read_text(encoding="utf-8"))))


def table(found: dict[str, Any]) -> str:
    """The results in Markdown, a loss as well as a win."""
    whole = next(each for each in found["runs"] if each["participation"] == "all")
    head = ("a round asks", "by", *(f"virtual s to {target:.0%}" for target in _TARGETS), "accuracy in the end")
    head = (*head, "virtual s in all", "MB", "sparsity, global / devices")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for each in found["runs"]:
        everyone = each is whole
        cells = (
            "all" if everyone else f"{each['participation']:.0%}",
            "–" if everyone else each["selection"],
            *(_reached(each["course"], target) for target in _TARGETS),
            f"{each['accuracy']:.1%}",
            f"{each['seconds']:.2f}",
            f"{each['bytes'] / 1e6:.1f}",
            f"{each['sparsity']:.0%} / {each['devices_sparsity']:.0%}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    large = found.get("growth")
    if large:
        parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in large["parts"].items() if seconds >= 0.005)
        lines += [
            "",
            f"{large['devices']:,} devices, {large['participation']:.0%} a round: {large['seconds']:.2f} s a round "
            f"({parts}), {large['peak_mb']:.0f} MB at the peak, {large['opened_mb']:.0f} MB before the first round; a "
            f"checkpoint has {large['checkpoint_mb']:.1f} MB.",
        ]
    seeds = ", ".join(str(seed) for seed in sorted({each["seed"] for each in found["runs"]}))
    lines += ["", f"Seed {seeds}. {words(found)}"]
    return "\n".join(lines)


def _reached(course: list[dict[str, Any]], target: float) -> str:
    """When a run first reached an accuracy: ``0.84 (round 7)``."""
    found = next((each for each in course if each["accuracy"] >= target), None)
    return "never" if found is None else f"{found['clock']:.2f} (round {found['round']})"


if __name__ == "__main__":
    main()
