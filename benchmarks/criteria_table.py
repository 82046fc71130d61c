"""Criteria of importance on pre-trained models: accuracy, or loss of text, after equal rounds at equal sparsity.

    python benchmarks/real_models.py smollm2 FOLDER                       # a decoder of 135 M parameters
    python benchmarks/criteria_table.py --model smollm2=FOLDER --data DATA --texts trec --seeds 1 2 3 [--processes 4] \\
        [--sparsities 0.5] [--criteria fisher-global random-global] [--set FIELD=VALUE] [--out FILE.json]
    python benchmarks/criteria_table.py --render criteria                 # the table of README.md from the results

DATA has a folder for each text, each with train.jsonl and test.jsonl. Forty devices prune one structure after the
first round and train it for the rest: what differs between runs is the criterion, and whether units compete within a
layer or over all layers. ``dense`` is the same run without pruning.
"""

import argparse
import json
import time
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from readme_table import put
from side_by_side import Cell, add_options, finish, outcome

_HERE = Path(__file__).parent
_JOB = str(_HERE / "minilm.toml")
_SETS = [
    "method.name=slimfed", "bandit.name=fixed", "bandit.local_steps=[]", "bandit.ranks=[8]", "fleet.devices=40",
    "training.rounds=12", "training.local_steps=10", "evaluation.devices=0", "evaluation.every=12",
    "engine.name=cohort", "engine.workers=1",
]  # fmt: skip
_TEXT = [
    "model.task=causal-lm", "data.prompt=prompt", "data.completion=completion", "data.max_length=128",
    "data.partition.kind=iid", "evaluation.generate.examples=0",
]  # fmt: skip
_WRITTEN = ("e2e",)
"""Texts that are prompts and completions."""
_CRITERIA = ("fisher", "lora-gradient", "activation", "magnitude", "random")
_SCOPES = ("layer", "global")
VARIANTS = ["dense", *(f"{criterion}-{scope}" for criterion, scope in product(_CRITERIA, _SCOPES))]
"""What a run can differ in: a criterion and the scope in which units compete, or no pruning at all."""


def fields(cell: Mapping[str, Any]) -> list[str]:
    """The job's fields for one run."""
    criterion, _, scope = cell["variant"].rpartition("-")
    pruned = [f"method.importance={criterion}", f"pruning.scope={scope}"] if criterion else []
    return [
        f"model.path={cell['path']}", f"data.path={cell['data']}", f"seed={cell['seed']}", *_SETS,
        *(_TEXT if cell["text"] in _WRITTEN else []),
        f"method.target_sparsity={cell['sparsity']}", *pruned, *cell["sets"],
    ]  # fmt: skip


def run(cell: Cell) -> Cell:
    """One run; what it ends with."""
    from local_run import run as run_job  # here: a table is rendered without torch

    began = time.monotonic()
    return outcome(cell, run_job(_JOB, fields(cell)), began)


def key(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells one run from another."""
    return (*(cell[name] for name in ("model", "text", "variant", "sparsity", "seed")), *cell["sets"])


def cells(options: argparse.Namespace) -> list[Cell]:
    """The runs that the command line asks for, seed by seed."""
    chosen = []
    for seed, model, text, variant in product(options.seeds, options.model, options.texts, options.criteria):
        name, _, path = model.partition("=")
        for sparsity in [0.0] if variant == "dense" else options.sparsities:
            told = {"model": name, "text": text, "variant": variant, "sparsity": sparsity, "seed": seed}
            chosen.append({**told, "sets": options.sets, "path": path, "data": f"{options.data}/{text}"})
    return chosen


def table(results: list[Cell]) -> str:
    """Mean and standard deviation over the seeds, by model, text, sparsity, settings and variant; Markdown."""
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for result in results:
        place = result["model"], result["text"], result["sparsity"], VARIANTS.index(result["variant"])
        groups.setdefault((*place, ", ".join(result["sets"])), []).append(result)
    lines = ["| model | text | sparsity | criterion, scope | other settings | at the end | seeds |", "|---" * 7 + "|"]
    for (model, text, _, variant, settings), found in sorted(groups.items()):
        reached = fmean(result["reached"] for result in found)
        seeds = ", ".join(str(seed) for seed in sorted(result["seed"] for result in found))
        place = f"| {model} | {text} | {100 * reached:.1f}% | {VARIANTS[variant]} |"
        lines.append(f"{place} {settings} | {_measure(found)} | {seeds} |")
    return "\n".join(lines)


def _measure(found: list[Cell]) -> str:
    written = found[0]["text"] in _WRITTEN
    values = [result["loss"] if written else 100 * result["accuracy"] for result in found]
    digits, unit = (3, " nats a token") if written else (1, "%")
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{spread}{unit}"


def main() -> None:
    """Measure, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--criteria", nargs="+", default=VARIANTS, choices=VARIANTS)
    parser.add_argument("--sparsities", nargs="+", type=float, default=[0.5])
    add_options(parser, _HERE / "results" / "criteria.json")
    options = parser.parse_args()
    if options.render:
        put(options.render, table(json.loads(options.out.read_text(encoding="utf-8"))))
    else:
        finish(cells(options), run, key, options.out, options.processes, options.seconds)


if __name__ == "__main__":
    main()
