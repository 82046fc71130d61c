"""What a user waits for in a whole `slimfed run`: start-up, rounds, every phase of a round, and memory.

    python benchmarks/whole_run.py [--minilm FOLDER --sst2 FOLDER] [--smollm2 FOLDER] [--gemma3 FOLDER --e2e FOLDER]
    python benchmarks/whole_run.py --render       # run nothing, write the README's table from results/whole-run.json

Each model is one `slimfed run` with Flower's runtime, Ray's workers, the SQLite store and checkpoints, without pruning;
what slimfed chooses by itself (processor or GPU, precision, cohorts, workers) is left to it. The encoder that slimfed
ships is always measured. benchmarks/real_models.py makes the folders of SmolLM2 and Gemma 3; their text is E2E.

One more round is run than is asked for: the first round is left out since it warms up, and the last since it evaluates.
Seconds a round are the time from one recorded round to the next, medians over the rest. Without ``--evaluate`` no
measured round evaluates, and the last one reads 64 texts of the test split. ``--dashboard``: the dashboard's server
runs beside it, with its list of runs drawn every two seconds.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from calling import CallError, slimfed_environment, slimfed_run
from dashboard_visitor import visiting
from machine import load, machine
from process_memory import MemoryWatch
from readme_table import put
from whole_run_report import table

_RESULTS = Path(__file__).parent / "results" / "whole-run.json"
_MODELS = ("tiny", "minilm", "smollm2", "gemma3")
_TITLES = {
    "tiny": "BERT, 2 layers x 128",
    "minilm": "MiniLM-L6 on SST-2",
    "smollm2": "SmolLM2-135M on E2E",
    "gemma3": "Gemma 3 270M on E2E",
}
_SEED = 1
_LAST_TEXTS = 64
_CAUSAL = {
    "model.task": "causal-lm",
    "data.prompt": "prompt",
    "data.completion": "completion",
    "data.partition.kind": "iid",
}


@dataclass(frozen=True)
class Case:
    """A model and the size of its run. ``model``, ``data``: folders; None for what slimfed ships."""

    name: str
    model: Path | None
    data: Path | None
    devices: int
    length: int

    @property
    def causal(self) -> bool:
        """Whether it is a decoder."""
        return self.name in ("smollm2", "gemma3")


def main() -> None:
    """Measure and keep, or render."""
    options = _options()
    if options.render:
        put("whole-run", table(json.loads(options.out.read_text(encoding="utf-8"))))
        return
    try:
        for case in _cases(options):
            _keep(options.out, measure(case, options))
    except CallError as error:
        sys.exit(f"error: {error}")
    print(table(json.loads(options.out.read_text(encoding="utf-8"))))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("minilm", "sst2", "smollm2", "gemma3", "e2e"):
        parser.add_argument(f"--{name}", type=Path, metavar="FOLDER")
    parser.add_argument("--only", nargs="+", choices=_MODELS, default=_MODELS, help="measure only these models")
    parser.add_argument("--devices", type=int, help="default: 40 for decoders, 80 for encoders")
    parser.add_argument("--length", type=int, help="longest text in tokens; default: 128 for decoders, 32 for encoders")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which all but the first are measured")
    parser.add_argument("--evaluate", action="store_true", help="evaluate on the whole test split in every round")
    parser.add_argument("--dashboard", action="store_true", help="with the dashboard beside it, and a visitor")
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds that one run may take")
    parser.add_argument("--out", type=Path, default=_RESULTS)
    parser.add_argument("--render", action="store_true", help="run nothing, write the README's table from --out")
    options = parser.parse_args()
    if options.render and not options.out.is_file():
        parser.error(f"--render: there is no {options.out}")
    if options.rounds < 2:
        parser.error("--rounds: at least 2, the first is left out")
    if bool(options.minilm) != bool(options.sst2) or bool(options.smollm2 or options.gemma3) != bool(options.e2e):
        parser.error("--minilm goes with --sst2, --smollm2 and --gemma3 with --e2e")
    for name in ("minilm", "sst2", "smollm2", "gemma3", "e2e"):
        folder = getattr(options, name)
        if folder and not folder.is_dir():
            parser.error(f"--{name}: there is no folder {folder}")
    return options


def _cases(options: argparse.Namespace) -> Iterator[Case]:
    """The models whose folders are given, the built-in one first."""
    found = {"tiny": None, "minilm": options.minilm, "smollm2": options.smollm2, "gemma3": options.gemma3}
    text = {"tiny": None, "minilm": options.sst2, "smollm2": options.e2e, "gemma3": options.e2e}
    for name, model in found.items():
        if name in options.only and (model or name == "tiny"):
            small = name in ("tiny", "minilm")
            devices, length = options.devices or (80 if small else 40), options.length or (32 if small else 128)
            yield Case(name, model, text[name], devices, length)


def _keep(path: Path, entry: dict[str, Any]) -> None:
    """Add a result to the file; an earlier one of the same model in the same place is replaced."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"runs": {}}
    place = sorted(set(entry["machine"]["gpus"])) or [entry["machine"]["processor"]]
    beside = [name for name in ("dashboard", "evaluate") if entry["options"][name]]
    found["runs"][", ".join([entry["title"], *place, *beside])] = entry
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measure(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """One whole run. Raises ``CallError`` with its cause if it fails or takes too long."""
    entry: dict[str, Any] = {"title": _TITLES[case.name], "machine": machine(), "load": [load()]}
    work = {name: getattr(options, name) for name in ("steps", "batch", "rank", "rounds", "dashboard", "evaluate")}
    entry["options"] = {**work, "devices": case.devices, "length": case.length, "seed": _SEED}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        scratch = Path(folder)
        environment = slimfed_environment(scratch / "home", scratch)
        sets = _sets(case, options, scratch)
        visit = stack.enter_context(visiting(environment)) if options.dashboard else None
        watch = stack.enter_context(MemoryWatch())
        began = time.time()
        shown = slimfed_run(f"{entry['title']}, slimfed run", sets, environment, options.limit, watch.follow)
        entry |= _times(shown, began, time.time())
    entry["memory"] = dict(watch.peaks) | {"gpu": watch.gpu_bytes, "gpu counted": watch.gpu_counted}
    if visit is not None:
        entry["visits"] = {"page": visit.page, "seconds": visit.seconds, "errors": visit.errors}
        if not visit.seconds:
            raise CallError(f"{entry['title']}: the dashboard drew no page: {visit.errors[:1]}")
    return entry


def _sets(case: Case, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Fields of the job."""
    rounds = options.rounds + 1
    sets: dict[str, Any] = {
        "seed": _SEED, "fleet.devices": case.devices, "data.max_length": case.length,
        "method.target_sparsity": 0.0, "bandit.ranks": [options.rank], "training.rounds": rounds,
        "training.local_steps": options.steps, "training.batch_size": options.batch, "training.learning_rate": 2e-3,
        "evaluation.every": 1 if options.evaluate else rounds, "evaluation.device_examples": 1,
        "evaluation.devices": 0,
    }  # fmt: skip
    if case.model and case.data:
        texts = None if options.evaluate else _LAST_TEXTS
        sets |= {"model.path": case.model.resolve(), "data.path": _copied(case.data, scratch / "data", texts)}
    return sets | (_CAUSAL if case.causal else {})


def _copied(data: Path, folder: Path, texts: int | None) -> Path:
    """The training split, and the first ``texts`` of the test split (None: all of it)."""
    folder.mkdir()
    shutil.copy(data / "train.jsonl", folder)
    lines = (data / "test.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "test.jsonl").write_text("".join(lines[:texts]), encoding="utf-8")
    return folder


def _times(shown: dict[str, Any], began: float, ended: float) -> dict[str, Any]:
    """Seconds of the run's parts. The measured rounds are those between the first and the last."""
    logs = Path(shown["folder"], "logs")
    phases = [json.loads(line) for line in (logs / "profile.jsonl").read_text(encoding="utf-8").splitlines()]
    moments = [datetime.fromisoformat(each["finished_at"]).timestamp() for each in shown["round_list"]]
    if len(phases) != len(moments) or len(moments) < 3:
        raise CallError(f"run {shown['run_id']}: {len(moments)} rounds are recorded, {len(phases)} with their phases")
    return {
        "startup_seconds": moments[0] - phases[0]["wall_seconds"] - began,
        "first_round_seconds": phases[0]["wall_seconds"],
        "round_seconds": [later - earlier for earlier, later in pairwise(moments)][:-1],
        "last_round_seconds": moments[-1] - moments[-2],
        "ending_seconds": ended - moments[-1],
        "whole_seconds": ended - began,
        "server": _medians([each["server"] for each in phases[1:-1]]),
        "nodes": _medians([each["nodes"] for each in phases[1:-1]]),
        "engine": (logs / "engine.log").read_text(encoding="utf-8").splitlines(),
        "losses": [each["train_loss"] for each in shown["round_list"]],
    }


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Median over the rounds of each phase, in the order in which the phases first came."""
    names = dict.fromkeys(name for phases in rounds for name in phases)
    return {name: median(phases.get(name, 0.0) for phases in rounds) for name in names}


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
