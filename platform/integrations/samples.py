"""The figures of a run as samples for other tools."""

import math
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

from slimfed.clients.errors import InputError
from slimfed.platform.store.reader import Reader
from slimfed.platform.trackers import Sample

_OF_A_ROUND = (
    "train_loss",
    "sparsity",
    "global_sparsity",
    "device_accuracy_mean",
    "virtual_seconds",
    "virtual_clock",
    "wall_seconds",
    "bytes_up",
    "bytes_down",
    "joules",
    "asked",
    "accepted",
    "late",
    "staleness",
    "in_flight",
    "rejected",
)
_OF_AN_EVALUATION = ("accuracy", "loss", "macro_f1", "calibration_error", "exact_match", "rouge_l", "bleu")


def samples_by_round(reader: Reader, run_id: str, after: int = 0) -> Iterator[tuple[int, list[Sample]]]:
    """Every finite figure of every round above ``after``, oldest round first."""
    rounds = reader.rounds(run_id, after)
    measured = {row.round: row for row in reader.evaluations(run_id)} if rounds else {}
    for row in rounds:
        yield row.round, list(_of_round(row, measured.get(row.round)))


def _of_round(row: Any, evaluation: Any) -> Iterator[Sample]:
    for source, names in ((row, _OF_A_ROUND), (evaluation, _OF_AN_EVALUATION)):
        for name in names:
            value = getattr(source, name, None)
            if value is not None and math.isfinite(value):
                yield Sample(name, row.round, float(value), row.finished_at)


def needed(module: str, extra: str) -> ModuleType:
    """Import a package of an integration. Raises ``InputError`` that names the missing extra."""
    try:
        return import_module(module)
    except ImportError:
        raise InputError(f"the package {module} is missing: pip install 'slimfed[{extra}]'") from None
