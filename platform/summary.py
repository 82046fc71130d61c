"""A run as one JSON object, for ``slimfed run --json`` and ``slimfed runs --json``."""

import math
from collections.abc import Iterable
from sys import float_info
from typing import Any

from slimfed.platform.store.reader import Reader
from slimfed.platform.under_way import as_json, state_of

MEASURES = (
    *("loss", "macro_f1", "calibration_error", "perplexity", "bits_per_byte", "accuracy_normalised"),
    *("exact_match", "rouge_l", "bleu"),
)
"""Measures of the global model beside its accuracy; None if not applicable to the task."""


def perplexity(task: str, loss: float | None) -> float | None:
    """e^loss of a language model; None for a classifier, before an evaluation, and if it overflows."""
    if task != "causal-lm" or loss is None:
        return None
    return math.exp(loss) if loss < math.log(float_info.max) else None


def measures(task: str, row: Any) -> dict[str, float | None]:
    """:data:`MEASURES` of a row of ``runs`` or ``evaluations``, for the run's ``task``; all None without a row."""
    found = {name: getattr(row, name, None) for name in MEASURES}
    return found | {"perplexity": perplexity(task, found["loss"])}


def counts(row: Any) -> dict[str, int | None]:
    """``examples`` and ``test_examples`` of a row of ``evaluations``: both None without a row."""
    return {name: getattr(row, name, None) for name in ("examples", "test_examples")}


def run_summary(run: Any, seconds_per_round: float | None, store: str, progress: Any = None) -> dict[str, Any]:
    """The object for one run. ``run``: a row of ``Reader.runs`` or ``Reader.find_run``; ``progress``: its row, if any.

    ``state``: the status, or "preparing" or "stopping"; ``progress``: where it is at this moment, null unless a process
    computes it.

    ``rounds``: those finished. ``accuracy``: the pruned global model on the test split, on ``examples`` of its
    ``test_examples`` (null in runs of older versions: on all); ``device_accuracy_mean``: the devices' own pruned
    models; ``sparsity``: mean over devices; ``seconds_per_round``: median after the first round; ``joules``: estimated
    energy of all devices; ``epsilon``: privacy spent (null without ``[privacy]``); ``sweep``: the sweep that made the
    run, if any. ``evaluated_on``: the split that these figures are of, "test" or "validation"; in the second case
    ``held_out_accuracy`` is that on the test split after the last round. ``base_accuracy``: of the untuned model, on as
    many examples as before the last round; ``majority``: of the most frequent class on the same; both null in runs of
    older versions. ``reference``, ``reference_of``: what a run of reference shows, and of which run.
    """
    return {
        "run_id": run.id,
        "status": run.status,
        "state": state_of(run, progress),
        "progress": as_json(run, progress),
        "rounds": run.rounds_done,
        "devices": run.devices,
        "accuracy": run.accuracy,
        "device_accuracy_mean": run.device_accuracy_mean,
        "sparsity": run.sparsity,
        "virtual_seconds": run.virtual_seconds,
        "wall_seconds": run.wall_seconds,
        "seconds_per_round": seconds_per_round,
        "bytes_up": run.bytes_up,
        "bytes_down": run.bytes_down,
        "rejected_updates": run.rejected_updates,
        "joules": run.joules,
        "epsilon": run.epsilon,
        "task": run.task,
        **measures(run.task, run),
        "examples": run.examples,
        "test_examples": run.test_examples,
        "base_accuracy": run.base_accuracy,
        "majority": run.majority,
        "evaluated_on": run.evaluated_on,
        "held_out_accuracy": run.held_out_accuracy,
        "reference": run.reference,
        "reference_of": run.reference_of,
        "sweep": run.sweep,
        "store": store,
    }


def run_summaries(runs: Iterable[Any], reader: Reader, store: str) -> list[dict[str, Any]]:
    """The same for several runs, with one query for all of them."""
    rows = list(runs)
    medians = reader.seconds_per_round([run.id for run in rows])
    progress = reader.progress([run.id for run in rows if run.status == "running"])
    return [run_summary(run, medians.get(run.id), store, progress.get(run.id)) for run in rows]
