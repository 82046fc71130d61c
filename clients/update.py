"""What goes to a device for a round (assignment) and what comes back (update)."""

from dataclasses import dataclass, fields

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.structure import Structure


@dataclass(frozen=True)
class Assignment:
    """One device's part of a round.

    ``sparsity`` is what the device's structure shall reach by the end of the round (cumulative, share of the prunable
    parameters); ``learning_rate`` is the rate at the first step and ``learning_rate_end`` the one after the last.
    ``score``: score the units although nothing may be left to prune, for the server to decide.
    """

    device: int
    round: int
    rank: int
    sparsity: float
    local_steps: int
    learning_rate: float
    learning_rate_end: float
    seed: int
    evaluate: bool
    structure: Structure
    score: bool = False


@dataclass(frozen=True)
class Workload:
    """What a round asked of the device's processor, counted over the sliced model's real shapes."""

    flops: float
    traffic_bytes: float
    peak_memory_bytes: float

    def __add__(self, other: "Workload") -> "Workload":
        """One after the other: work adds up, memory is that of the larger."""
        return Workload(
            self.flops + other.flops,
            self.traffic_bytes + other.traffic_bytes,
            max(self.peak_memory_bytes, other.peak_memory_bytes),
        )


@dataclass(frozen=True)
class Evaluation:
    """A model on labelled text: mean loss (nats), accuracy in [0, 1] (of labels, or of next tokens), examples.

    What follows is in [0, 1], too, and None where it was not measured. Classification: ``macro_f1`` and
    ``calibration_error`` (``evaluation/metrics.py``). Causal-lm with prompts: ``exact_match``, ``rouge_l`` and
    ``bleu`` of the completions that the model wrote for ``generated`` prompts (``evaluation/generation.py``).
    """

    loss: float
    accuracy: float
    examples: int
    macro_f1: float | None = None
    calibration_error: float | None = None
    exact_match: float | None = None
    rouge_l: float | None = None
    bleu: float | None = None
    generated: int | None = None


@dataclass(frozen=True)
class Report:
    """What stays of an update when its tensors have been added up: its fields, but for adapter and scores.

    ``effective_rank``: that of the adapter.
    """

    device: int
    round: int
    rank: int
    effective_rank: float
    structure: Structure
    loss_before: float
    loss_after: float
    importance: float
    examples: int
    seconds: float
    measured_memory_bytes: int
    workload: Workload
    evaluation: Evaluation | None
    link_seconds: float = 0.0
    memory: Adapter | None = None


@dataclass(frozen=True)
class Update:
    """One device's result of a round, in the device's own shape.

    ``scores``: float32 [units], smoothed importance, 0 where removed. ``loss_before``/``loss_after``: mean loss on the
    same fixed local batches. ``importance``: size of what the adapter learnt (algorithms 1, step 4). ``seconds`` and
    ``peak_memory_bytes`` are measured, ``workload`` is counted. ``evaluation``: its own model on the test split.
    ``link_seconds``: what the server measured from its send to its receipt, less the node's work (real devices).
    ``memory``: what rounding took away of ``adapter`` (``messages/quantization.py``), for the next time; None if
    nothing was rounded.
    """

    device: int
    round: int
    rank: int
    structure: Structure
    adapter: Adapter
    scores: np.ndarray
    loss_before: float
    loss_after: float
    importance: float
    examples: int
    seconds: float
    measured_memory_bytes: int
    workload: Workload
    evaluation: Evaluation | None
    link_seconds: float = 0.0
    memory: Adapter | None = None

    @property
    def effective_rank(self) -> float:
        """That of the adapter."""
        return self.adapter.effective_rank

    def report(self) -> Report:
        """The update without its tensors."""
        return Report(**{each.name: getattr(self, each.name) for each in fields(Report)})
