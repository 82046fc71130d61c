"""Time to a target accuracy where rounds wait for all devices, close at a deadline, or with a number of updates.

    python benchmarks/late_rounds.py [--seeds 7] [--out benchmarks/results/late_rounds.json]
    python benchmarks/late_rounds.py --render      # only the README's table again, from the results

The demo's world at a quarter of its size: 20 Jetsons, the built-in encoder and commands. Each mode gets so many rounds
that it has about as many updates as the synchronous run, with learning rate and pruning scheduled over its own rounds;
so synchronous rounds of half of the devices are there, too, which are as many as the buffered ones.
Two worlds: the profile as it is, and a fifth of the devices computing four times as long. Two agents: that of the
preset `slimfed`, which plans how long a round is, and `fixed`, which gives all devices equal work. Each run is computed
in a process of its own, and its seconds are those of the virtual clock.
"""

import argparse
import json
import tempfile
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from machine import load, machine, words
from own_process import keep, measure_in_own_process, tell
from readme_table import put

_HERE = Path(__file__).parent
_RESULTS = _HERE / "results" / "late_rounds.json"
_TARGETS = (0.5, 0.65, 0.75)
_SETS = (
    "fleet.devices=20 evaluation.devices=0 evaluation.examples=400 evaluation.device_examples=20 engine.name=cohort "
    "engine.cohort_size=4 engine.dtype=fp32 engine.workers=1"
)
_AGENTS = {
    "planning": "bandit.local_steps=[5,10]",
    "fixed": "bandit.name=fixed bandit.local_steps=[] training.local_steps=10",
}
_WORLDS = {"as it is": "", "stragglers": "disturbance.stragglers=0.2 disturbance.straggler_factor=4"}
# 10 rounds of 20 updates, and as many updates in other rounds.
_MODES = {
    "with all": "training.rounds=10",
    "with all of a half": "fleet.participation=0.5 training.rounds=20",
    "at a deadline": "server.mode=deadline server.close_share=0.8 training.rounds=12",
    "with 10 updates": "server.mode=buffered server.buffer=10 training.rounds=20",
}


def run(world: str, agent: str, mode: str, seed: int) -> dict[str, Any]:
    """Compute one run in this process; its rounds, and what came late."""
    import slimfed

    sets = f"{_SETS} {_WORLDS[world]} {_AGENTS[agent]} {_MODES[mode]} seed={seed}".split()
    with tempfile.TemporaryDirectory() as home:
        found = slimfed.run(set=sets, runtime="local", progress=False, home=home)
        rows = list(found.rounds.reset_index().itertuples())
    course = [
        {"round": int(row.round), "clock": row.virtual_clock, "accuracy": row.accuracy, "accepted": int(row.accepted)}
        for row in rows
    ]
    late = [0 if row.late is None or row.late != row.late else int(row.late) for row in rows]
    return {
        "world": world,
        "agent": agent,
        "mode": mode,
        "seed": seed,
        "status": found.status,
        "seconds": course[-1]["clock"],
        "accuracy": course[-1]["accuracy"],
        "updates": sum(each["accepted"] for each in course),
        "late": sum(late),
        "sparsity": float(rows[-1].global_sparsity),
        "course": course,
    }


def main() -> None:
    """Measure each run in a process of its own, keep the results, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=_RESULTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[7])
    parser.add_argument("--render", action="store_true", help="only write the README's table")
    parser.add_argument("--one", help="compute one run, print JSON (used by this script)")
    options = parser.parse_args()
    if options.one:
        tell(run(*json.loads(options.one)))
        return
    if not options.render:
        found = _begun(options.out)
        done = {(each["world"], each["agent"], each["mode"], each["seed"]) for each in found["runs"]}
        every = [(w, a, m, s) for s in options.seeds for w in _WORLDS for a in _AGENTS for m in _MODES]
        for one in (each for each in every if each not in done):
            found["load"].append(load())
            found["runs"].append(measure_in_own_process(__file__, one))
            keep(options.out, found)
    put("late-rounds", table(json.loads(options.out.read_text(encoding="utf-8"))))


def _begun(path: Path) -> dict[str, Any]:
    """The results so far, if they are of the same settings; else none. So a benchmark that was stopped goes on."""
    seen = machine(("slimfed", "torch", "transformers", "flwr"))
    new = {"machine": seen, "sets": [_SETS, _WORLDS, _AGENTS, _MODES], "load": [], "runs": []}
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return known if known.get("sets") == new["sets"] else new


def table(found: dict[str, Any]) -> str:
    """The results in Markdown, a loss as well as a win; of several seeds the median."""
    head = ("world", "agent", "rounds close", *(f"virtual s to {target:.0%}" for target in _TARGETS))
    head = (*head, "accuracy in the end", "virtual s in all", "updates", "of them late", "sparsity")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for kind in product(_WORLDS, _AGENTS, _MODES):
        runs = [each for each in found["runs"] if (each["world"], each["agent"], each["mode"]) == kind]
        if not runs:
            continue
        cells = (
            *kind,
            *(_reached(runs, target) for target in _TARGETS),
            f"{median(each['accuracy'] for each in runs):.1%}",
            f"{median(each['seconds'] for each in runs):.2f}",
            f"{median(each['updates'] for each in runs):.0f}",
            f"{median(each['late'] / each['updates'] for each in runs):.0%}",
            f"{median(each['sparsity'] for each in runs):.0%}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    seeds = ", ".join(str(seed) for seed in sorted({each["seed"] for each in found["runs"]}))
    lines += ["", f"Seed {seeds}. {words(found)}"]
    return "\n".join(lines)


def _reached(runs: list[dict[str, Any]], target: float) -> str:
    """The median of the times at which runs first reached an accuracy."""
    never = float("inf")
    times = [next((c["clock"] for c in each["course"] if c["accuracy"] >= target), never) for each in runs]
    middle = sorted(times)[len(times) // 2]
    return "never" if middle == never else f"{middle:.2f}"


if __name__ == "__main__":
    main()
