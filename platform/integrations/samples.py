"""The figures of a run as samples for other tools."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from types import ModuleType
from typing import Any

from slimfed.clients.errors import InputError
from slimfed.platform.store.reader import Reader

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
    "rejected",
)
_OF_AN_EVALUATION = ("accuracy", "loss", "macro_f1", "calibration_error", "exact_match", "rouge_l", "bleu")


@dataclass(frozen=True)
class Sample:
    """One value of one series after a round."""

    name: str
    round: int
    value: float
    at: datetime


def samples(reader: Reader, run: Any) -> Iterator[Sample]:
    """Every finite figure of every round of a run (a row of the store), oldest round first."""
    measured = {row.round: row for row in reader.evaluations(run.id)}
    for row in reader.rounds(run.id):
        for source, names in ((row, _OF_A_ROUND), (measured.get(row.round), _OF_AN_EVALUATION)):
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
