"""What goes to a device for a round (assignment) and what comes back (update)."""

from dataclasses import dataclass, field

import numpy as np

from slimfed.clients.structure import Structure


@dataclass(frozen=True)
class Assignment:
    """One device's part of a round.

    ``sparsity`` is what the device's structure shall reach by the end of the round (cumulative, share of the prunable
    parameters); ``learning_rate`` is the rate at the first step and ``learning_rate_end`` the one after the last.
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


@dataclass(frozen=True)
class Factors:
    """LoRA factors of one module: ``a`` is float32 [rank, in], ``b`` is float32 [out, rank]; dW = scaling * b @ a.

    ``gate``: float32 [rank], SoRA's, already within ``b`` wherever an adapter is not being trained; else None.
    """

    a: np.ndarray
    b: np.ndarray
    gate: np.ndarray | None = None

    def parts(self) -> dict[str, np.ndarray]:
        """The tensors by their names."""
        named = {"a": self.a, "b": self.b}
        return named if self.gate is None else named | {"gate": self.gate}


@dataclass(frozen=True)
class Adapter:
    """A trained state: LoRA factors by module name and head tensors by parameter name.

    ``residual``: a change of the frozen weights that is the same for all devices, by module name, float32 [out, in];
    W becomes W + residual. The server alone makes it (aggregations that are exact in the product need it), devices are
    sent it and send none back.
    """

    factors: dict[str, Factors]
    head: dict[str, np.ndarray]
    residual: dict[str, np.ndarray] = field(default_factory=dict)

    def tensors(self) -> list[np.ndarray]:
        """All tensors: the factors of every module in order, then the head, then the residual."""
        factors = [part for f in self.factors.values() for part in f.parts().values()]
        return [*factors, *self.head.values(), *self.residual.values()]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors())

    @property
    def effective_rank(self) -> float:
        """Mean over the modules of the ranks that are not switched off."""
        ranks = [len(f.a) if f.gate is None else int(np.count_nonzero(f.gate)) for f in self.factors.values()]
        return float(np.mean(ranks)) if ranks else 0.0


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
    ``calibration_error`` (``evaluation.py``). Causal-lm with prompts: ``exact_match``, ``rouge_l`` and ``bleu`` of the
    completions that the model wrote for ``generated`` prompts (``generation.py``).
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
class Update:
    """One device's result of a round, in the device's own shape.

    ``scores``: float32 [units], smoothed importance, 0 where removed. ``loss_before``/``loss_after``: mean loss on the
    same fixed local batches. ``importance``: size of what the adapter learnt (algorithms 1, step 4). ``seconds`` and
    ``peak_memory_bytes`` are measured, ``workload`` is counted. ``evaluation``: its own model on the test split.
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
