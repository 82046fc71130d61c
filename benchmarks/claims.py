"""Claims about methods, each with the control that could refute it: accuracy, or loss, after equal rounds.

    python benchmarks/claims.py milestone --model minilm=FOLDER --data DATA --texts trec --seeds 1 2 3 \\
        [--set FIELD=VALUE] [--processes 2] [--out FILE.json]
    python benchmarks/claims.py --render claims       # the table of README.md from the results

DATA has a folder for each text, each with train.jsonl and test.jsonl. Sixteen devices; every side of a claim has the
same seeds, data, rounds and steps, and differs in the fields that ``CLAIMS`` names.
"""

import argparse
import fcntl
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from readme_table import put
from side_by_side import Cell, add_options, finish, outcome

_HERE = Path(__file__).parent
_JOB = str(_HERE / "minilm.toml")
_SETS = [
    "bandit.name=fixed", "bandit.local_steps=[]", "bandit.ranks=[8]", "fleet.devices=16", "training.rounds=12",
    "training.local_steps=10", "evaluation.devices=0", "evaluation.every=12", "engine.name=cohort", "engine.workers=1",
]  # fmt: skip
TEACHER = "TEACHER"
_SEVENTY = ("method.name=slimfed", "engine.name=sequential", "method.target_sparsity=0.7")


@dataclass(frozen=True)
class Claim:
    """``sides``: the fields that tell the sides apart. The first is claimed to end better than each other one.

    TEACHER in a field is the folder of an unpruned run's global model: the same job and seed, without pruning.
    ``measure``: "accuracy", of which more is better, or "loss", of which less is; the table has both.
    """

    says: str
    sides: Mapping[str, tuple[str, ...]]
    common: tuple[str, ...] = ()
    measure: str = "accuracy"


def _shares(sparsity: float) -> Claim:
    """Layer shares of a tuned model that is pruned at once: round 1 scores and measures, and no weight moves."""
    return Claim(
        f"Layers cut by cfsp have a lower loss than equal ones ({sparsity:.0%} pruned at once, not trained after it)",
        {name: (f"pruning.allocation={name}",) for name in ("cfsp", "equal", "erk", "zeroth")},
        (
            "method.name=slimfed", f"model.path={TEACHER}", f"method.target_sparsity={sparsity}", "pruning.scope=layer",
            "pruning.structure=shared", "pruning.schedule=one-shot", "training.rounds=2",
            "training.learning_rate=1e-12", "training.local_steps=4", "calibration.devices=4",
            "calibration.tokens=2048", "messages.precision=fp32", "evaluation.device_examples=8",
        ),
        "loss",
    )  # fmt: skip


def _trained_shares(sparsity: float) -> Claim:
    """The same, trained for eight rounds after the cut."""
    cut = _shares(sparsity)
    still = ("training.rounds=2", "training.learning_rate=1e-12", "training.local_steps=4")
    return Claim(
        f"Layers cut by zeroth end higher than equal ones ({sparsity:.0%} pruned at once, then eight rounds)",
        {name: cut.sides[name] for name in ("zeroth", "equal", "erk")},
        (*(field for field in cut.common if field not in still), "training.rounds=9"),
    )


CLAIMS = {
    "milestone": Claim(
        "PAT that decides at a third of the run ends higher than at 80% (70% of the width removed)",
        {"0.33": ("adapter.milestone=0.33",), "0.8": ("adapter.milestone=0.8",)},
        ("method.name=pat", "method.target_sparsity=0.7"),
    ),
    "criterion": Claim(
        "Units chosen by fisher end higher than by activation, by random, and by random in equal layers (50% pruned)",
        {
            "fisher": ("method.importance=fisher",),
            "activation": ("method.importance=activation",),
            "random": ("method.importance=random",),
            "random, layer": ("method.importance=random", "pruning.scope=layer"),
            "unpruned": ("method.target_sparsity=0.0",),
        },
        ("method.name=slimfed", "method.target_sparsity=0.5", "pruning.scope=balanced"),
    ),
    "threshold": Claim(
        "SoRA whose threshold keeps its learning rate ends higher than one whose threshold falls with it",
        {"nothing": ("adapter.threshold_follows=nothing",), "rate": ("adapter.threshold_follows=rate",)},
        ("method.name=sora", "method.target_sparsity=0.0"),
    ),
    "teacher": Claim(
        "SquareHead with a tuned teacher ends higher than with the base, and than without a teacher (70% pruned)",
        {
            "tuned": ("training.recovery=squarehead", f"training.teacher={TEACHER}"),
            "base": ("training.recovery=squarehead",),
            "none": ("training.recovery=plain",),
        },
        _SEVENTY,
    ),
    "predictions": Claim(
        "Distillation from a tuned teacher's predictions ends higher than without a teacher (70% pruned)",
        {"tuned": ("training.kl=1.0", f"training.teacher={TEACHER}"), "none": ("training.kl=0.0",)},
        _SEVENTY,
    ),
    "allocation": _shares(0.7),
    "allocation-half": _shares(0.5),
    "allocation-trained": _trained_shares(0.7),
    "soups": Claim(
        "Soups of merged weights end higher than means of factors (one shared structure, 50% pruned)",
        {"soups": ("method.aggregation=soups",), "factors": ("method.aggregation=fedavg",)},
        ("method.name=slimfed", "messages.precision=fp32", "method.target_sparsity=0.5"),
    ),
}


def run(cell: Cell) -> Cell:
    """One run; what it ends with."""
    from local_run import run as run_job  # here: a table is rendered without torch

    claim = CLAIMS[cell["claim"]]
    began = time.monotonic()
    place = [f"model.path={cell['path']}", f"data.path={cell['data']}", f"seed={cell['seed']}"]
    fields = [*place, *_SETS, *claim.common, *claim.sides[cell["side"]], *cell["sets"]]
    if any(TEACHER in field for field in fields):
        teacher = str(_teacher(Path(cell["scratch"]), [*place, *_SETS, *cell["sets"]], cell))
        fields = [field.replace(TEACHER, teacher) for field in fields]
    return outcome(cell, run_job(_JOB, fields), began)


def _teacher(scratch: Path, fields: list[str], cell: Cell) -> Path:
    """The folder of the global model of the unpruned run, which is made once for each model, text and seed."""
    import slimfed  # here: a table is rendered without torch
    from slimfed.platform.lineage import finished_model

    home = scratch / f"{cell['model']}-{cell['text']}-{cell['seed']}"
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be making it
        done = home / "done"
        if not done.exists():
            dense = [*fields, "method.name=slimfed", "method.target_sparsity=0.0", "name=teacher"]
            made = slimfed.run(_JOB, set=dense, runtime="local", home=home, progress=False)
            if made.status != "done":
                raise RuntimeError(f"the teacher's run {made.id} is {made.status}: {made.cause}")
            done.touch()
        return finished_model(slimfed.load_job(_JOB), "last", home, "training.teacher")[1]


def key(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells one run from another."""
    return (*(cell[name] for name in ("claim", "model", "text", "side", "seed")), *cell["sets"])


def cells(options: argparse.Namespace) -> list[Cell]:
    """The runs that the command line asks for, seed by seed, both sides of a seed next to each other."""
    chosen = []
    for seed, claim, model, text in product(options.seeds, options.claims, options.model, options.texts):
        name, _, path = model.partition("=")
        for side in CLAIMS[claim].sides:
            told = {"claim": claim, "model": name, "text": text, "side": side, "seed": seed, "sets": options.sets}
            place = {"path": path, "data": f"{options.data}/{text}", "scratch": options.scratch}
            chosen.append({**told, **place})
    return chosen


def table(results: list[Cell]) -> str:
    """A row for each side of each claim: means over the seeds, and what the first side is better by; Markdown."""
    groups: dict[tuple[Any, ...], dict[str, dict[int, Cell]]] = {}
    for result in results:
        place = (*(result[name] for name in ("claim", "model", "text")), ", ".join(result["sets"]))
        groups.setdefault(place, {}).setdefault(result["side"], {})[result["seed"]] = result
    lines = [
        "| claim | model, text | side | sparsity | accuracy at the end | loss at the end "
        "| the first side is better by, seed by seed |"
    ]
    lines.append("|---" * 7 + "|")
    for (claim, model, text, settings), sides in sorted(groups.items()):
        first = next(iter(CLAIMS[claim].sides))
        for side in [name for name in CLAIMS[claim].sides if name in sides]:
            found = sides[side]
            where = ", ".join(filter(None, [model, text, settings]))
            told = CLAIMS[claim].says if side == first else ""
            lead = "" if side == first else _lead(CLAIMS[claim].measure, sides.get(first, {}), found)
            reached = fmean(result["reached"] for result in found.values())
            ends = f"{_accuracy(found)} | {_loss(found)}"
            lines.append(f"| {told} | {where} | {side} | {100 * reached:.1f}% | {ends} | {lead} |")
    return "\n".join(lines)


def _accuracy(found: Mapping[int, Cell]) -> str:
    values = [100 * result["accuracy"] for result in found.values()]
    spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{fmean(values):.1f}%{spread} ({len(values)} seed{'s' * (len(values) != 1)})"


def _loss(found: Mapping[int, Cell]) -> str:
    values = [result["loss"] for result in found.values()]
    spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{fmean(values):.3f}{spread}"


def _lead(measure: str, first: Mapping[int, Cell], other: Mapping[int, Cell]) -> str:
    both = sorted(first.keys() & other.keys())
    if measure == "loss":
        return ", ".join(f"{other[seed]['loss'] - first[seed]['loss']:+.3f}" for seed in both)
    return ", ".join(f"{100 * (first[seed]['accuracy'] - other[seed]['accuracy']):+.1f}" for seed in both)


def main() -> None:
    """Measure, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help=", ".join(CLAIMS))
    parser.add_argument("--scratch", default="/tmp/slimfed-claims", help="folder for the runs that teach")
    add_options(parser, _HERE / "results" / "claims.json")
    options = parser.parse_args()
    unknown = [claim for claim in options.claims if claim not in CLAIMS]
    if unknown:
        parser.error(f"unknown claims {unknown}; valid: {', '.join(CLAIMS)}")
    if options.render:
        put(options.render, table(json.loads(options.out.read_text(encoding="utf-8"))))
    else:
        finish(cells(options), run, key, options.out, options.processes, options.seconds)


if __name__ == "__main__":
    main()
