"""A round on a CPU against stock Flower + PEFT, in turns on the same machine. Writes the README's table and figure.

    python benchmarks/cpu_round.py [--minilm FOLDER --sst2 FOLDER]
    python benchmarks/cpu_round.py --render             # only table and figure again, from results/cpu-round.json

80 devices x 10 steps x batch 8 x length 32, rank 8, no pruning: `slimfed run` with its defaults, and flower_peft.py.
Without the two folders only the 2-layer BERT that slimfed ships is measured.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
import psutil
from readme_table import put

from slimfed.clients.builtin.commands import commands

matplotlib.use("svg")
from matplotlib import pyplot

_HERE = Path(__file__).parent
_RESULTS = _HERE / "results" / "cpu-round.json"
_FIGURE = _HERE / "images" / "cpu-round.svg"
_TINY = _HERE.parent / "clients" / "builtin" / "weights" / "tiny-encoder"
_WORK = {"devices": 80, "steps": 10, "batch": 8, "length": 32, "rank": 8, "learning_rate": 2e-3}
_AIMS = {"BERT, 2 layers x 128": 8, "MiniLM-L6 on SST-2": 3}
_SECONDS = 900


def main() -> None:
    """Measure, keep, render."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minilm", type=Path, help="folder of the model")
    parser.add_argument("--sst2", type=Path, help="folder with train.jsonl and test.jsonl")
    parser.add_argument("--turns", type=int, default=2, help="how often each side of the small model is run")
    parser.add_argument("--out", type=Path, default=_RESULTS)
    parser.add_argument("--render", action="store_true", help="run nothing, write table and figure from --out")
    options = parser.parse_args()
    if not options.render:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(measure(options), indent=1) + "\n", encoding="utf-8")
    results = json.loads(options.out.read_text(encoding="utf-8"))
    print(table(results))
    if options.out == _RESULTS:
        put("cpu-round", table(results))
        draw(results)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Both sides of every model, in turns."""
    names = ("slimfed", "torch", "transformers", "peft", "flwr", "ray")
    found: dict[str, Any] = {"versions": {name: version(name) for name in names}, "models": {}}
    found["cores"], found["load"] = os.cpu_count(), []
    with tempfile.TemporaryDirectory() as scratch:
        for name, model, data, rounds, turns in _models(options, Path(scratch)):
            found["models"][name] = {"slimfed": [], "peer": []}
            for _ in range(turns):
                found["load"].append(psutil.getloadavg()[0])
                found["models"][name]["peer"].append(peer(model, data, rounds, Path(scratch)))
                found["models"][name]["slimfed"].append(ours(model, data, rounds + 2, Path(scratch)))
    return found


def _models(options: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, Path, Path, int, int]]:
    """Name, model, data, rounds of the peer and turns."""
    names = list(_AIMS)
    _write_commands(scratch / "commands")
    yield names[0], _TINY, scratch / "commands", 3, options.turns
    if options.minilm and options.sst2:
        yield names[1], options.minilm, options.sst2, 1, 1


def _write_commands(folder: Path) -> None:
    folder.mkdir()
    splits = dict(zip(("train", "test"), commands(), strict=True))
    labels = sorted({row.label for row in splits["train"]})
    for name, rows in splits.items():
        lines = [json.dumps({"text": row.text, "label": labels.index(row.label)}) for row in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")


def peer(model: Path, data: Path, rounds: int, scratch: Path) -> dict[str, Any]:
    """Seconds of every round of Flower + PEFT."""
    settings = scratch / "settings.json"
    settings.write_text(json.dumps({**_WORK, "model": str(model), "data": str(data), "rounds": rounds}))
    text = _run([sys.executable, str(_HERE / "flower_peft.py"), str(settings)], {"PYTHONPATH": str(_HERE)})
    (line,) = [line for line in text.splitlines() if line.startswith("PEER ")]
    return json.loads(line.removeprefix("PEER "))


def ours(model: Path, data: Path, rounds: int, scratch: Path) -> dict[str, Any]:
    """Seconds of every round of `slimfed run`, store and checkpoint included."""
    sets = {
        "model.path": model, "data.path": data, "data.max_length": _WORK["length"], "fleet.devices": _WORK["devices"],
        "method.target_sparsity": 0.0, "bandit.ranks": [_WORK["rank"]], "training.rounds": rounds,
        "training.local_steps": _WORK["steps"], "training.batch_size": _WORK["batch"],
        "training.learning_rate": _WORK["learning_rate"], "evaluation.every": rounds, "evaluation.device_examples": 1,
    }  # fmt: skip
    command = [sys.executable, "-c", "from slimfed.platform.cli import main; main()", "run", "--json"]
    command += [part for name, value in sets.items() for part in ("--set", f"{name}={value}")]
    home = {"SLIMFED_HOME": str(scratch / "home")}
    summary = json.loads(_run(command, home))
    shown = json.loads(_run([*command[:3], "show", summary["run_id"], "--json"], home))
    folder = scratch / "home" / summary["run_id"]
    reasons = (folder / "logs" / "engine.log").read_text(encoding="utf-8").splitlines()
    # The last round also measures every model, which the peer does not.
    return {"seconds": [each["wall_seconds"] for each in shown["round_list"]][:-1], "engine": reasons}


def _run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} failed: {done.stderr[-2000:]}")
    return done.stdout


def table(results: dict[str, Any]) -> str:
    """Markdown: one row a model."""
    lines = ["| model | Flower + PEFT, s a round | slimfed, s a round | times faster | aim |", "|---|---|---|---|---|"]
    for name, sides in results["models"].items():
        theirs, our = _seconds(sides["peer"]), _seconds(sides["slimfed"])
        lines.append(f"| {name} | {theirs:.1f} | **{our:.2f}** | **{theirs / our:.1f}** | {_AIMS[name]} |")
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    loads = ", ".join(f"{load:.1f}" for load in results["load"])
    lines += ["", f"{results['cores']} cores; load average before each turn {loads}; {versions}. slimfed chose:", ""]
    for name, sides in results["models"].items():
        lines += [f"- {name}: {reason}" for reason in sides["slimfed"][-1]["engine"]]
    return "\n".join(lines)


def _seconds(runs: list[dict[str, Any]]) -> float:
    """Median over the rounds of all turns, the first of each left out where there are more: it warms up."""
    return median(seconds for run in runs for seconds in (run["seconds"][1:] or run["seconds"]))


def draw(results: dict[str, Any]) -> None:
    """Seconds a round of both sides, a pair of bars a model."""
    matplotlib.rcParams["svg.hashsalt"] = "slimfed"
    figure, axes = pyplot.subplots(figsize=(7, 2.6), layout="constrained")
    for place, (side, label) in enumerate((("peer", "Flower + PEFT"), ("slimfed", "slimfed"))):
        seconds = [_seconds(sides[side]) for sides in results["models"].values()]
        bars = axes.barh([n + 0.4 * place for n in range(len(seconds))], seconds, height=0.38, label=label)
        axes.bar_label(bars, fmt="%.1f s", padding=3)
    axes.set_yticks([n + 0.2 for n in range(len(results["models"]))], list(results["models"]))
    axes.set_xlabel("seconds a round of 80 devices")
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.legend(frameon=False)
    _FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(_FIGURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
