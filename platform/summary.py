"""A run in one JSON object: what ``slimfed run --json`` and ``slimfed runs --json`` print."""

from collections.abc import Iterable
from typing import Any

from slimfed.platform.store.queries import Reader


def run_summary(run: Any, seconds_per_round: float | None, store: str) -> dict[str, Any]:
    """The object for one run. ``run``: a row of ``Reader.runs`` or ``Reader.find_run``.

    ``rounds``: those finished. ``accuracy``: the pruned global model on the test split; ``device_accuracy_mean``: the
    devices' own pruned models; ``sparsity``: mean over devices; ``seconds_per_round``: median after the first round.
    """
    return {
        "run_id": run.id,
        "status": run.status,
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
        "store": store,
    }


def run_summaries(runs: Iterable[Any], reader: Reader, store: str) -> list[dict[str, Any]]:
    """The same for several runs, with one query for all of them."""
    rows = list(runs)
    medians = reader.seconds_per_round([run.id for run in rows])
    return [run_summary(run, medians.get(run.id), store) for run in rows]
