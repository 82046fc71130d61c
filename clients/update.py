"""The assignment of a device for a round, and its result: an update or a failure."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.structure import Structure


@dataclass(frozen=True)
class Assignment:
    """One device's part of a round.

    ``sparsity`` is that of the device's structure at the end of the round (cumulative, share of the prunable
    parameters); ``learning_rate`` is the rate at the first step and ``learning_rate_end`` the one after the last.
    ``score``: score the units even if the device prunes none, for the server. ``probed``: the agent learns from the
    losses before and after, so that measuring them counts as the device's work. ``calibrate``: tokens of the
    device's text on which to measure, before training, what ``pruning.allocation`` needs, at most; 0: do not measure.
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
    probed: bool = False
    calibrate: int = 0


@dataclass(frozen=True)
class Workload:
    """The work of a round on the device's processor, counted over the shapes of the sliced model."""

    flops: float
    traffic_bytes: float
    peak_memory_bytes: float

    def __add__(self, other: "Workload") -> "Workload":
        """Both one after the other: work is summed, memory is the larger one."""
        return Workload(
            self.flops + other.flops,
            self.traffic_bytes + other.traffic_bytes,
            max(self.peak_memory_bytes, other.peak_memory_bytes),
        )


@dataclass(frozen=True)
class Sample:
    """What a language model wrote for a prompt of the test split, beside what the split has for it; long texts cut."""

    prompt: str
    references: tuple[str, ...]
    written: str


@dataclass(frozen=True)
class Evaluation:
    """A model on labelled text: mean loss (nats), accuracy in [0, 1] (of labels, or of next tokens), examples.

    The other measures are in [0, 1], and None if not measured. Classification: ``macro_f1`` and ``calibration_error``
    (``evaluation/metrics.py``). Causal-lm: ``bits_per_byte`` of the text that is predicted, any number from 0. With
    choices, ``accuracy`` is that of the likeliest choice, ``accuracy_normalised`` that of the likeliest for each of its
    bytes (``evaluation/choices.py``). With prompts: ``exact_match``, ``rouge_l`` and ``bleu`` of the completions
    that the model generated for ``generated`` prompts (``evaluation/generation.py``).

    ``test_examples``: examples of the test split, of which the ``examples`` measured are a sample, or all; None if it
    is not known. ``samples``: some of the completions; of the server's own evaluation alone, never in a message.
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
    test_examples: int | None = None
    bits_per_byte: float | None = None
    accuracy_normalised: float | None = None
    samples: tuple[Sample, ...] | None = None


@dataclass(frozen=True)
class Report:
    """A device's report on its round; the server keeps it after the tensors have been summed.

    ``rank``: number of LoRA ranks the adapter has. ``effective_rank``: mean over the modules of the ranks that are not
    switched off (``Adapter.effective_rank``). ``structure``: that of the device after the round.
    ``loss_before``/``loss_after``: mean loss (nats) on the same fixed local batches. ``importance``: mean over the
    steps of the adapter's sensitivity, sum of abs(weight * gradient). ``examples``: training texts of the device.
    ``seconds`` and ``measured_memory_bytes`` are measured, ``workload`` is counted. ``evaluation``: the device's own
    model on the test split; None if it was not measured. ``link_seconds``: from the server's send to its receipt, less
    the node's work (real devices). ``memory``: the rounding error of the sent adapter, in the adapter's shapes, for the
    device's next round (``messages/quantization.py``); None if nothing was rounded.
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
    """One device's result of a round: its report and its tensors, in the device's own shape.

    ``scores``: float32 [units], smoothed importance of every unit, 0 where it was removed. ``measured``: float64
    [1 + blocks], what ``pruning.allocation`` measured on the device's text; None if that was not asked for.
    """

    report: Report
    adapter: Adapter
    scores: np.ndarray
    measured: np.ndarray | None = None

    @property
    def device(self) -> int:
        """Number of the device, as in :attr:`Failure.device`."""
        return self.report.device

    def with_report(self, **changes: Any) -> "Update":
        """The update with other values in these fields of its report."""
        return replace(self, report=replace(self.report, **changes))


@dataclass(frozen=True)
class Failure:
    """A device without usable update, and the cause."""

    device: int
    cause: str
