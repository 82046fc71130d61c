"""Stand-ins for what a strategy needs from above, which remember what they were told."""

import json

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.spec import AdapterSpec, DataSpec, ModelSpec, PruningSpec, TaskSpec, TrainingSpec
from slimfed.clients.structure import Structure
from slimfed.clients.update import Evaluation, Report
from slimfed.strategies.bandits import BanditSpec
from slimfed.strategies.protocols import Baseline, Completion, Event, RoundRecord
from slimfed.strategies.settings import StrategySettings


def small_task(devices: int = 6, rounds: int = 4, local_steps: int = 3) -> TaskSpec:
    """The built-in encoder and text, in a few steps of a few devices."""
    return TaskSpec(
        seed=5,
        devices=devices,
        model=ModelSpec(),
        data=DataSpec(max_length=24),
        adapter=AdapterSpec(),
        pruning=PruningSpec(),
        training=TrainingSpec(rounds=rounds, local_steps=local_steps, batch_size=4, learning_rate=5e-3),
        cohort_size=2,
    )


def small_settings(task: TaskSpec, *, every: int, own: int, retries: int = 0) -> StrategySettings:
    """Half of the structure is removed. ``every``: rounds between evaluations, ``own``: and between devices' own."""
    return StrategySettings(
        task=task,
        bandit=BanditSpec(ranks=(2, 4)),
        aggregation="coverage",
        target_sparsity=0.5,
        evaluate_every=every,
        evaluate_devices=own,
        nodes=2,
        reply_seconds=120,
        straggler_seconds=None,
        quorum=0.5,
        retries=retries,
    )


class Memory:
    """A recorder that keeps everything, and can be told when to ask for a stop."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.rounds: list[RoundRecord] = []
        self.events: list[Event] = []
        self.baselines: list[Baseline] = []
        self.checkpoints: list[tuple[dict[str, np.ndarray], str]] = []
        self.stop_after = stop_after
        self.told = 0

    def record(self, record: RoundRecord, tensors: dict, state: dict) -> None:
        self.rounds.append(record)
        self.checkpoints.append(({name: value.copy() for name, value in tensors.items()}, json.dumps(state)))

    def begin(self, baseline: Baseline) -> None:
        self.baselines.append(baseline)

    def event(self, event: Event) -> None:
        self.events.append(event)

    def spend(self, before: int) -> int:
        self.told = max(self.told, before) + 1
        return self.told

    def stop_requested(self) -> bool:
        return self.stop_after is not None and len(self.rounds) >= self.stop_after


class Clock:
    """Device d takes d + 1 seconds; some run out of memory or drop out."""

    def __init__(self, out_of_memory: tuple[int, ...] = (), dropped: tuple[int, ...] = ()) -> None:
        self.out_of_memory, self.dropped = out_of_memory, dropped

    def completion(self, report: Report, bytes_down: int, bytes_up: int) -> Completion:
        assert bytes_down > 0
        assert bytes_up > 0
        device = report.device
        return Completion(0.5, device + 0.25, 0.25, device in self.out_of_memory, device in self.dropped)


class Evaluator:
    """Says nothing about accuracy, but checks what it is given."""

    def evaluate(self, adapter: Adapter, structure: Structure, examples: int = 0, *, write: bool = True) -> Evaluation:
        assert all(np.isfinite(tensor).all() for tensor in adapter.tensors())
        return Evaluation(1.0, structure.sparsity, examples or 9, test_examples=9)

    def majority(self, examples: int = 0) -> float | None:
        return 0.25

    def held_out(self, adapter: Adapter, structure: Structure) -> Evaluation | None:
        return None


def assert_same_checkpoint(one, other) -> None:
    assert one[1] == other[1]
    assert one[0].keys() == other[0].keys()
    for name, value in one[0].items():
        np.testing.assert_array_equal(value, other[0][name], err_msg=name)
