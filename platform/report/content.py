"""What a report tells of a run, read from the store and the run's folder."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from slimfed.clients.errors import InputError
from slimfed.platform.home import RunFolder
from slimfed.platform.job.job import parse_job
from slimfed.platform.job.presets import PRESETS
from slimfed.platform.standing import Standing, standing
from slimfed.platform.store.dashboard_reader import Insight


@dataclass(frozen=True)
class Block:
    """One block of the model: its units, and how many the devices have kept on average."""

    layer: int
    kind: str
    units: int
    kept: float


@dataclass(frozen=True)
class Content:
    """Rows are those of the store. ``changes``: fields of the job that differ from the preset's, by path.

    ``samples``: of the newest round that has some, and that round. ``digests``: SHA-256 of files that the run began
    with, by field and file; empty if they are not here.
    """

    run: Any
    rounds: Sequence[Any]
    evaluations: Sequence[Any]
    standing: Standing
    references: Sequence[Any]
    seeds: Sequence[Any]
    classes: Sequence[Any]
    newest_classes: Sequence[Any]
    blocks: Sequence[Block]
    global_sparsity: float | None
    events: Mapping[str, int]
    samples: Sequence[Mapping[str, Any]]
    samples_round: int | None
    changes: Mapping[str, Any]
    digests: Mapping[str, str]
    reasons: Sequence[str]
    written_by: str


def gather(reader: Insight, wanted: str) -> Content:
    """Everything about a run. Raises ``InputError`` if there is no such run."""
    run = reader.find_run(wanted)
    references = reader.references(run.id)
    sampled = reader.sampled_rounds(run.id)
    classes = reader.class_rounds(run.id)
    folder = RunFolder(Path(run.folder))
    return Content(
        run=run,
        rounds=reader.rounds(run.id),
        evaluations=reader.evaluations(run.id),
        standing=standing(run, references),
        references=references,
        seeds=_other_seeds(reader, run),
        classes=reader.class_sizes(run.id),
        newest_classes=[row for row in classes if row.round == classes[-1].round],
        blocks=[Block(row.layer, row.kind, row.units, row.kept) for row in reader.blocks(run.id)],
        global_sparsity=reader.global_sparsity(run.id),
        events=Counter(row.kind for row in reader.events(run.id, None)),
        samples=reader.samples(run.id, sampled[0]).samples if sampled else (),
        samples_round=sampled[0] if sampled else None,
        changes=_changes(run.job),
        digests=_digests(folder),
        reasons=_reasons(folder),
        written_by=f"slimfed {version('slimfed')}",
    )


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and standard deviation of the sample (0 of one value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _other_seeds(reader: Insight, run: Any) -> list[Any]:
    """Finished runs of the same job with other seeds, of any sweep; the newest of each seed."""
    alike = {}
    mine = _without_seed(run.job)
    for row in reader.runs(None, status=("done",), method=run.method):
        if row.id == run.id or row.seed == run.seed or row.seed in alike or row.rounds != run.rounds:
            continue
        if _without_seed(reader.find_run(row.id).job) == mine:
            alike[row.seed] = row
    return list(alike.values())


def _without_seed(job: Mapping[str, Any]) -> dict[str, Any]:
    left = ("seed", "name", "store", "engine", "deadlines")
    return {name: value for name, value in job.items() if name not in left}


def _changes(job: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that differ from those of a job that names the method alone."""
    method = job.get("method", {}).get("name")
    try:
        usual = dict(
            _leaves(parse_job({"method": {"name": method}} if method in PRESETS else {}).model_dump(mode="json"))
        )
    except InputError:  # a method of another version
        return {}
    return {
        path: value
        for path, value in _leaves(job)
        if path not in ("name", "seed") and not path.startswith("store.") and value != usual.get(path)
    }


def _leaves(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in table.items():
        found += _leaves(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(prefix + name, value)]
    return found


def _digests(folder: RunFolder) -> dict[str, str]:
    try:
        found = json.loads(folder.inputs.read_bytes()).get("files", {})
    except (OSError, ValueError):
        return {}
    return {f"{field}: {name}": str(digest) for field, files in found.items() for name, digest in files.items()}


def _reasons(folder: RunFolder) -> list[str]:
    try:
        return [line for line in folder.engine_log.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError:
        return []
