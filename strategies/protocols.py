"""The records of a round, and the interfaces that the platform implements for the strategy.

Floor 2 never imports the platform.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.structure import Structure
from slimfed.clients.update import Assignment, Evaluation, Report

DeviceStatus = Literal["done", "rejected", "out-of-memory", "dropout", "late", "failed", "in-flight", "stale"]
"""What came of a device in a round. "late": it missed the deadline of a round that waits for all; "in-flight": its
update had not arrived when the round closed; "stale": its update arrived too many rounds late to count."""


@dataclass(frozen=True)
class Completion:
    """How long a device took for its part of a round, in virtual or measured seconds, and the energy it used.

    ``out_of_memory``: training did not fit its memory. ``dropped``: it was lost during the round. ``joules``: energy of
    its own part. ``waiting_watts``: power while it waits for the other devices. Both are None if unknown.
    """

    download_seconds: float
    compute_seconds: float
    upload_seconds: float
    out_of_memory: bool = False
    dropped: bool = False
    joules: float | None = None
    waiting_watts: float | None = None

    @property
    def seconds(self) -> float:
        """From the server's send to its receipt of the update."""
        return self.download_seconds + self.compute_seconds + self.upload_seconds

    def joules_in(self, round_seconds: float) -> float | None:
        """Joules of the device in a round of ``round_seconds``: its own part, then waiting; None if unknown."""
        if self.joules is None or self.waiting_watts is None:
            return None
        return self.joules + self.waiting_watts * max(0.0, round_seconds - self.seconds)


@dataclass(frozen=True)
class Event:
    """An incident of a round: its kind, the cause, what to do, and the device (None if it is not about one)."""

    round: int
    kind: str
    cause: str
    remedy: str
    device: int | None = None


@dataclass(frozen=True)
class DeviceRecord:
    """One device in one round: one that the round asked, or one that an earlier round asked (``assignment.round``) and
    whose update arrived in this one.

    ``report``: that of its update; None if no update was accepted. ``reward``: in [0, 1]; None if its agent learnt
    nothing.

    ``joules``: its energy until the end of the round; None if unknown.
    """

    assignment: Assignment
    status: DeviceStatus
    completion: Completion | None
    report: Report | None
    reward: float | None
    bytes_down: int
    bytes_up: int
    joules: float | None = None


@dataclass(frozen=True)
class RoundRecord:
    """All that is recorded of a round. ``sparsity`` is the mean over all devices of the fleet.

    ``joules``: energy of all devices that the clock has a completion of; None if that of one is unknown. ``nodes``:
    number of devices given to each node that replied, by node id. ``removed``: the part of the sparsity that the
    adapter took from every device, beside heads and channels. ``epsilon``: privacy spent so far; None without privacy.
    ``aggregation_error`` and its standard error ``aggregation_error_deviation``: see ``aggregation/error.py``.
    ``phases``: seconds by phase, of the "server" and, summed over the nodes, of the "nodes". ``held_out``: the global
    model on the test split after the last round, if rounds are evaluated on a validation split. ``devices`` are those
    that were asked, of ``available`` ones (None: not known), and those whose updates came late. ``waited_seconds``: the
    part of ``virtual_seconds`` before the round in which no device was available. ``in_flight``: updates that have not
    arrived when the round closed; None where rounds wait for all.
    """

    round: int
    devices: tuple[DeviceRecord, ...]
    events: tuple[Event, ...]
    evaluation: Evaluation | None
    device_accuracy_mean: float | None
    sparsity: float
    global_sparsity: float
    virtual_seconds: float
    wall_seconds: float
    bytes_down: int
    bytes_up: int
    train_loss: float | None
    joules: float | None = None
    epsilon: float | None = None
    nodes: Mapping[int, int] = field(default_factory=dict)
    removed: float = 0.0
    aggregation_error: float | None = None
    aggregation_error_deviation: float | None = None
    phases: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    held_out: Evaluation | None = None
    available: int | None = None
    waited_seconds: float = 0.0
    in_flight: int | None = None


@dataclass(frozen=True)
class Baseline:
    """What a run is judged by: the untuned model before round 1, and the most frequent class.

    ``majority``: accuracy, in [0, 1], of answering every text of the evaluated sample with the class that most training
    texts have; None for causal-lm.
    """

    evaluation: Evaluation
    majority: float | None


class Clock(Protocol):
    """The completion time of a device's round: from a profile (virtual) or measured (real)."""

    def completion(self, report: Report, bytes_down: int, bytes_up: int) -> Completion:
        """Completion of ``report.device`` in ``report.round``."""
        ...


class Forecast(Protocol):
    """Completion times by the devices' profiles, for agents that foresee; real devices have no profiles."""

    def seconds(self, device: int, round: int, before: float, after: float, rank: int, local_steps: int) -> float:
        """Completion time of a round in which a device goes from sparsity ``before`` to ``after`` in ``local_steps``.

        Infinite if its memory does not suffice.
        """
        ...

    def sparsity_to_fit(self, device: int, rank: int) -> float:
        """The least sparsity at which the device's memory holds training at this rank; 0 if none is enough, too."""
        ...

    def first_scores(self) -> np.ndarray:
        """Importance of the base's units by its weights, float32 [units], for structures before there are scores."""
        ...


class Availability(Protocol):
    """When simulated devices are available, on the virtual clock."""

    def at(self, seconds: float) -> np.ndarray:
        """The devices that are available at a virtual second, int64, ascending."""
        ...

    def next_opening(self, seconds: float, devices: np.ndarray) -> float | None:
        """The first virtual second after ``seconds`` at which one of ``devices`` becomes available; None: never."""
        ...


class Recorder(Protocol):
    """Writes rounds, checkpoints and events, and reports requests to stop the run."""

    def record(self, record: RoundRecord, tensors: dict, state: dict) -> None:
        """Write one finished round and its checkpoint, durably, before the next one starts.

        ``tensors`` and ``state`` (JSON-able) are those of ``Fleet.checkpoint``.
        """
        ...

    def begin(self, baseline: Baseline) -> None:
        """Write the baseline, which is round 0, before the first round starts. A repetition replaces it."""
        ...

    def event(self, event: Event) -> None:
        """Write one event at once (a repeated round, a failure)."""
        ...

    def spend(self, before: int) -> int:
        """Count a disclosure (``privacy.spent``) before it happens; returns the number of disclosures of this run so
        far.

        Disclosures of abandoned and repeated rounds count, too. The result is larger than ``before``.
        """
        ...

    def stop_requested(self) -> bool:
        """True once this run has been asked to stop."""
        ...


class Evaluator(Protocol):
    """Measures the global model in a given structure on the test split."""

    def evaluate(self, adapter: Adapter, structure: Structure, examples: int = 0, *, write: bool = True) -> Evaluation:
        """The base, sliced to ``structure``, with ``adapter`` at full rank.

        ``examples``: so many of the test split, the same in every call; 0: all. ``write``: a language model completes
        prompts, too.
        """
        ...

    def majority(self, examples: int = 0) -> float | None:
        """Accuracy, in [0, 1], of the most frequent class on the same ``examples``; None for causal-lm."""
        ...

    def held_out(self, adapter: Adapter, structure: Structure) -> Evaluation | None:
        """The same on all of the test split, if :meth:`evaluate` measures on a validation split; else None."""
        ...
