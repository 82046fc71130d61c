"""Every number that a device reports: its type, its range, and the module that checks it.

A device may claim any number. Each has a range that no honest device leaves, so that nothing that the server computes
from them overflows, and no page shows what cannot be. The range says nothing of the truth of a claim within it.
"""

import math
from dataclasses import dataclass
from typing import Literal

from slimfed.clients.update import Report

Owner = Literal["update_checks", "assignment", "server"]
"""``update_checks``: by its range here. ``assignment``: must equal what was assigned (``update_checks.py``).
``server``: computed by the server from the tensors or its own clock; what the device claims is not read."""

# A uniform guess among 2^64 tokens has a loss of 44 nats.
_LOSS = 1e4
# A pebibyte.
_MEMORY = 2**50
# A hundred years of the fastest machine of 2024.
_OPERATIONS = 1e28
_YEAR_SECONDS = 3.2e7
_MOST_EXAMPLES = 2**29 - 1
# The largest number of PostgreSQL's INTEGER.
_WHOLE = 2**31 - 1


@dataclass(frozen=True)
class Number:
    """A number of a message. ``kind``: exactly this type; ``low`` to ``high`` are allowed. ``unit``: for people."""

    kind: type
    low: float
    high: float
    unit: str
    owner: Owner = "update_checks"

    def fault(self, value: object) -> str | None:
        """What is wrong with ``value``, in words that follow the field's name; None if nothing is."""
        whole = self.kind is int
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            return f"is {value!r:.50}, expected a {'whole ' if whole else ''}number"
        if isinstance(value, float) and not math.isfinite(value):
            return f"is {value}, expected a number from {self.low:g} to {self.high:g} ({self.unit})"
        if not self.low <= value <= self.high:
            return f"is {_shown(value)}, expected {self.low:g} to {self.high:g} ({self.unit})"
        return None


def _shown(value: float) -> str:
    """A number in a few characters, also a whole one of any length."""
    return f"{value}" if abs(value) < 1e15 else f"{value:.3g}" if abs(value) < 1e300 else "beyond 1e300"


_SHARE = Number(float, 0.0, 1.0, "share")
_COUNT = Number(int, 0, _WHOLE, "count")

REPORT: dict[str, Number] = {
    "device": Number(int, 0, 10**9 - 1, "device", "assignment"),
    "round": Number(int, 1, _WHOLE, "round", "assignment"),
    "rank": Number(int, 1, _WHOLE, "ranks", "assignment"),
    "effective_rank": Number(float, 0.0, _WHOLE, "ranks", "server"),
    "loss_before": Number(float, 0.0, _LOSS, "nats"),
    "loss_after": Number(float, 0.0, _LOSS, "nats"),
    "importance": Number(float, 0.0, 1e12, "sum of |weight * gradient|"),
    "examples": Number(int, 1, _MOST_EXAMPLES, "texts"),
    "seconds": Number(float, 0.0, _YEAR_SECONDS, "seconds"),
    "link_seconds": Number(float, 0.0, _YEAR_SECONDS, "seconds", "server"),
    "measured_memory_bytes": Number(int, 0, _MEMORY, "bytes"),
    "workload.flops": Number(float, 0.0, _OPERATIONS, "operations"),
    "workload.traffic_bytes": Number(float, 0.0, _OPERATIONS, "bytes"),
    "workload.peak_memory_bytes": Number(float, 0.0, _MEMORY, "bytes"),
    "evaluation.loss": Number(float, 0.0, _LOSS, "nats"),
    "evaluation.accuracy": _SHARE,
    "evaluation.examples": Number(int, 1, _WHOLE, "texts"),
    "evaluation.macro_f1": _SHARE,
    "evaluation.bits_per_byte": Number(float, 0.0, _LOSS, "bits"),
    "evaluation.accuracy_normalised": _SHARE,
    "evaluation.calibration_error": _SHARE,
    "evaluation.exact_match": _SHARE,
    "evaluation.rouge_l": _SHARE,
    "evaluation.bleu": _SHARE,
    "evaluation.generated": _COUNT,
    "evaluation.test_examples": _COUNT,
}
"""All numbers of a report, by the names of its fields."""


def reported(report: Report) -> dict[str, object]:
    """The numbers of ``report`` that are checked by their range, by the names of :data:`REPORT`; no None."""
    values: dict[str, object] = {name: getattr(report, name) for name in REPORT if "." not in name}
    values |= {f"workload.{name}": value for name, value in vars(report.workload).items()}
    if report.evaluation is not None:
        measured = vars(report.evaluation).items()
        values |= {f"evaluation.{name}": value for name, value in measured if value is not None}
    return {name: value for name, value in values.items() if REPORT[name].owner == "update_checks"}


def first_fault(report: Report) -> tuple[str, str] | None:
    """The first number of ``report`` that is out of its range: its name, and what is wrong with it."""
    for name, value in reported(report).items():
        fault = REPORT[name].fault(value)
        if fault is not None:
            return name, fault
    return None
