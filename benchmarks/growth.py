"""Seconds and memory of a round, from 80 to 10,000 devices. Writes the README's table and figure.

    python benchmarks/growth.py [--sizes 80 1000 10000]
    python benchmarks/growth.py --render        # only table and figure again, from results/growth.json

The server's own code (strategy, bandits, clock, recorder, SQLite store, checkpoints) with the node's own code behind a
LocalGrid, each fleet in a process of its own: a random BERT of 2 layers x 64, two steps of one short text a device,
pruning, LoRA of rank 2 or 4, s-ucb. Training is minimal, so that the overhead of a large fleet dominates. Memory is the
process's peak, node included; seconds are medians of the rounds after the first.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

from readme_table import put

_HERE = Path(__file__).parent
_RESULTS = _HERE / "results" / "growth.json"
_FIGURE = _HERE / "images" / "growth.svg"
_SIZES = (80, 1000, 10_000)
_ROUNDS = 3
# More rounds than are computed, so that none of them is the last, which measures every device's own model.
_PLANNED = 8
_NODES = 2
_WORDS = (
    "turn",
    "the",
    "light",
    "on",
    "in",
    "kitchen",
    "please",
    "not",
    "lamp",
    "but",
    "heater",
    "off",
    "when",
    "dark",
)
_SETS = (
    "data.max_length=12 training.local_steps=2 training.batch_size=1 pruning.events=1 pruning.until=1.0 "
    "bandit.ranks=[2,4] evaluation.devices=0 evaluation.every=100 data.partition.kind=iid "
    "engine.name=cohort engine.cohort_size=200 engine.dtype=fp32 engine.workers=1"
)
# Which phases of the profile (server's and nodes') make up a column; "wait" is what it is beyond the nodes' own work.
_PARTS = {
    "train": ("open", "build", "batches", "probe", "steps", "importance", "prune", "read", "evaluate@node"),
    "messages": ("encode", "encode@node", "decode", "wait"),
    "judge": ("judge",),
    "aggregate": ("aggregate", "sum"),
    "bandits": ("plan", "reward"),
    "checkpoint": ("checkpoint", "state"),
    "store": ("store",),
}


def measure(devices: int, rounds: int, home: Path, more: Sequence[str] = ()) -> dict[str, Any]:
    """Compute some rounds of a fleet in this process; ``more``: further fields of its job."""
    # Here: the parent, which only starts children and draws, needs none of it.
    from slimfed.clients.node.runtime import open_runtime
    from slimfed.platform.fleet.profiles import load_fleet
    from slimfed.platform.job.job import load_job
    from slimfed.platform.launch.preflight import Checked
    from slimfed.platform.launch.run_creation import create_run
    from slimfed.platform.launch.workers import Sizing
    from slimfed.platform.server.assembly import assemble, new_fleet
    from slimfed.platform.server.recorder import StoreRecorder
    from slimfed.platform.store.writer import Store
    from slimfed.strategies.local_grid import LocalGrid
    from slimfed.strategies.transport import StopRequestedError

    class Recorder(StoreRecorder):
        """The real one, which also looks at the clock, and stops after some rounds."""

        ends: ClassVar[list[float]] = []

        def record(self, record: Any, tensors: Any, state: Any) -> None:
            super().record(record, tensors, state)
            self.ends.append(time.perf_counter())
            print(f"{devices} devices, round {record.round}: {record.wall_seconds:.1f} s", file=sys.stderr, flush=True)
            if record.round == rounds:
                raise StopRequestedError

        def stop_requested(self) -> bool:
            return False

    _write_texts(home / "data", 2 * devices)
    _write_model(home / "model")
    places = [f"{section}.path={home / section}" for section in ("model", "data")]
    sets = [*places, f"fleet.devices={devices}", f"training.rounds={_PLANNED}", *_SETS.split(), *more]
    job = load_job(None, sets)
    with Store.open("sqlite", home) as store:
        fleet = load_fleet(job.fleet, job.seed)
        run, folder = create_run(store, home, Checked(job, fleet, (2,) * devices, Sizing(_NODES, 1, 0), ()))
        store.mark_running(run)
        runtime = open_runtime(job.task_spec())
        opened = _peak_mb()
        recorder = Recorder(store, run, folder.checkpoints)
        began = time.perf_counter()
        with suppress(StopRequestedError):
            assemble(job, runtime, new_fleet(runtime, job), _NODES, recorder).start(LocalGrid(_NODES))
    lines = [json.loads(line) for line in folder.profile.read_text().splitlines()]
    seconds = median(later - before for before, later in list(pairwise(recorder.ends)) or [(began, recorder.ends[0])])
    parts = [_parts(line) for line in lines[1:] or lines]
    spent = {name: median(part[name] for part in parts) for name in _PARTS}
    return {
        "devices": devices,
        "rounds": len(recorder.ends),
        "peak_mb": _peak_mb(),
        "opened_mb": opened,
        "seconds": seconds,
        "parts": spent | {"rest": max(0.0, seconds - sum(spent.values()))},
        "store_mb": sum(path.stat().st_size for path in home.glob("store.db*")) / 1e6,
        "checkpoint_mb": sum(path.stat().st_size for path in folder.checkpoints.rglob("round-*/*")) / 1e6 / 2,
    }


def _write_texts(folder: Path, rows: int) -> None:
    """Texts of two classes with arbitrary content."""
    folder.mkdir()
    for split, count in (("train", rows), ("test", 20)):
        with (folder / f"{split}.jsonl").open("w") as file:
            for row in range(count):
                words = [_WORDS[(row * (step + 3)) % len(_WORDS)] for step in range(4 + row % 5)]
                file.write(json.dumps({"text": f"{' '.join(words)} {row}", "label": str(row % 2)}) + "\n")


def _write_model(folder: Path) -> None:
    """Random weights, and the tokenizer of the built-in model."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from slimfed.clients.models.loading import load_model
    from slimfed.clients.spec import ModelSpec

    tokenizer = load_model(ModelSpec(), ("0", "1"), 0).tokenizer
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=16,
        pad_token_id=tokenizer.pad_token_id,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _parts(line: dict[str, Any]) -> dict[str, float]:
    """Seconds of one round by column."""
    nodes = {f"{name}@node" if name in ("encode", "evaluate") else name: s for name, s in line["nodes"].items()}
    found = nodes | line["server"]
    # In one process the server waits exactly as long as the nodes work.
    found["wait"] = max(0.0, line["server"]["wait"] - sum(nodes.values()))
    return {column: sum(found.get(name, 0.0) for name in names) for column, names in _PARTS.items()}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def table(results: dict[str, Any]) -> str:
    """Markdown: one row a fleet."""
    lines = [
        f"| devices | peak memory, MB | seconds a round | ms a device | {' | '.join([*_PARTS, 'rest'])} | "
        "store, KB a device and round | checkpoint, KB a device |",
        "|" + "---|" * (len(_PARTS) + 7),
    ]
    for row in results["fleets"]:
        each = 1e3 / row["devices"]
        parts = " | ".join(f"{each * row['parts'][name]:.2f}" for name in [*_PARTS, "rest"])
        lines.append(
            f"| {row['devices']:,} | **{row['peak_mb']:,.0f}** | {row['seconds']:.2f} | "
            f"**{each * row['seconds']:.2f}** | {parts} | {each * row['store_mb'] / row['rounds']:.2f} | "
            f"{each * row['checkpoint_mb']:.2f} |"
        )
    small, large = (results["fleets"][index]["peak_mb"] for index in (-2, -1))
    sizes = [f"{results['fleets'][index]['devices']:,}" for index in (-2, -1)]
    lines += ["", f"From {sizes[0]} to {sizes[1]} devices the peak changes by {large / small - 1:+.0%}. "]
    lines[-1] += f"The columns after the fourth say what its milliseconds are. {results['machine']}."
    return "\n".join(lines)


def draw(results: dict[str, Any]) -> None:
    """Memory, and milliseconds a device by part, over the number of devices."""
    import matplotlib  # only here: measuring needs none

    matplotlib.use("Agg")
    from matplotlib import pyplot

    fleets = results["fleets"]
    sizes = [row["devices"] for row in fleets]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3), layout="constrained")
    left.plot(sizes, [row["peak_mb"] for row in fleets], marker="o", color="#2a6fbb")
    left.set_ylim(bottom=0)
    left.set_xscale("log")
    left.set_ylabel("peak memory, MB")
    names, bottom = [str(f"{size:,}") for size in sizes], [0.0] * len(sizes)
    for part in [*_PARTS, "rest"]:
        heights = [1e3 * row["parts"][part] / row["devices"] for row in fleets]
        right.bar(names, heights, bottom=bottom, label=part)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    right.set_ylabel("ms a device and round")
    right.legend(fontsize="small", frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
    for axes in (left, right):
        axes.set_xlabel("devices")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(_FIGURE, metadata={"Date": None})


def main() -> None:
    """Measure each fleet in a process of its own, keep, render."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(_SIZES))
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help=f"of each fleet, at most {_PLANNED - 1}")
    parser.add_argument("--out", type=Path, default=_RESULTS)
    parser.add_argument("--render", action="store_true", help="measure nothing, write table and figure from --out")
    parser.add_argument("--one", type=int, help="measure one fleet in this process and print it as JSON")
    given = parser.parse_args()
    if given.one is not None:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(given.one, given.rounds, Path(folder))))
        return
    if not given.render:
        fleets = []
        for size in given.sizes:
            command = [sys.executable, __file__, "--one", str(size), "--rounds", str(given.rounds)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            fleets.append(json.loads(done.stdout.splitlines()[-1]))
        given.out.write_text(json.dumps({"machine": _machine(), "fleets": fleets}, indent=1) + "\n", encoding="utf-8")
    results = json.loads(given.out.read_text(encoding="utf-8"))
    put("growth", table(results))
    draw(results)


def _machine() -> str:
    import os
    from importlib.metadata import version

    versions = ", ".join(f"{name} {version(name)}" for name in ("slimfed", "torch", "flwr"))
    return f"{os.cpu_count()} cores, one process; load average in the end {os.getloadavg()[0]:.1f}; {versions}"


if __name__ == "__main__":
    main()
