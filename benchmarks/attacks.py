"""What lying devices cost: accuracy of a small real job under every aggregation, without and with them.

    python benchmarks/attacks.py            # about five minutes on two busy cores; prints the table of docs/security.md

The built-in model learns the built-in commands on ten devices, in one process. The lying ones train, turn their update
around and make it larger, and claim 2^29-1 examples. As on real devices, the server does not know the numbers of
examples.
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from flwr.app import Array, Message

from slimfed.clients.messages.records import decode_results
from slimfed.clients.node.runtime import open_runtime
from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.platform.job.job import Job, load_job
from slimfed.platform.server.assembly import assemble, new_fleet
from slimfed.strategies.local_grid import LocalGrid
from slimfed.strategies.server_state import Fleet

SETS = (
    "training.rounds=6 training.local_steps=8 training.batch_size=8 data.max_length=24 training.learning_rate=5e-3 "
    "method.target_sparsity=0.2 evaluation.every=6 evaluation.devices=0 engine.name=cohort engine.cohort_size=10 "
    "engine.dtype=fp32 engine.workers=1 data.partition.kind=iid fleet.devices=10"
)
AGGREGATIONS = ("coverage", "trimmed-mean", "median", "multi-krum")


@dataclass(frozen=True)
class Attack:
    """``liars`` multiply what they learnt by ``factor``; ``claim``: the number of examples that they claim."""

    name: str
    liars: tuple[int, ...] = ()
    factor: float = 1.0
    claim: int | None = None


ATTACKS = (
    Attack("none"),
    Attack("1 of 10 flips, 5 times as large, claims 2^29-1", (2,), -5.0, 2**29 - 1),
    Attack("2 of 10 flip", (2, 7), -1.0),
    Attack("2 of 10 flip, 5 times as large, claim 2^29-1", (2, 7), -5.0, 2**29 - 1),
)


class Lying(LocalGrid):
    """One node that serves all devices and changes the updates of the liars."""

    def __init__(self, fleet: Fleet, attack: Attack) -> None:
        super().__init__(1)
        self._fleet, self._attack = fleet, attack

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies, some of them changed."""
        replies = list(super().pull_messages(message_ids))
        for reply in replies:
            for device in self._attack.liars:
                if f"update-{device}" in reply.content:
                    self._change(reply.content, device)
        return replies

    def _change(self, content: Any, device: int) -> None:
        fleet, attack = self._fleet, self._attack
        [update] = decode_results(content, fleet.blueprint, {device})
        report = update.report
        sent = narrow(fleet.adapter, fleet.blueprint.dense(), report.structure, report.rank).vector
        values = sent + np.float32(attack.factor) * (update.adapter.vector - sent)
        content[f"update-{device}"]["adapter"] = Array(values.astype(np.float32))
        if attack.claim is not None:
            content[f"metrics-{device}"]["examples"] = attack.claim


class Silent:
    """A recorder that keeps the last accuracy."""

    accuracy = float("nan")

    def record(self, record: Any, tensors: dict, state: dict) -> None:
        """Keep the accuracy."""
        if record.evaluation is not None:
            self.accuracy = record.evaluation.accuracy

    def begin(self, baseline: Any) -> None:
        """Nothing is kept."""

    def event(self, event: Any) -> None:
        """Nothing is kept."""

    def spend(self, before: int) -> int:
        """No privacy is spent."""
        return before + 1

    def stop_requested(self) -> bool:
        """Never."""
        return False


def accuracy(job: Job, attack: Attack) -> float:
    """Accuracy of the global model after a run under ``attack``."""
    runtime, recorder = open_runtime(job.task_spec()), Silent()
    fleet = new_fleet(runtime, job)
    strategy = assemble(job, runtime, fleet, 1, recorder)
    strategy.context = replace(strategy.context, examples=None)
    strategy.start(Lying(fleet, attack))
    return recorder.accuracy


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    print("| attack | " + " | ".join(AGGREGATIONS) + " |")
    print("|---|" + "---|" * len(AGGREGATIONS))
    for attack in ATTACKS:
        jobs = [load_job(None, [*SETS.split(), f"method.aggregation={name}"]) for name in AGGREGATIONS]
        print(f"| {attack.name} | " + " | ".join(f"{accuracy(job, attack):.1%}" for job in jobs) + " |", flush=True)


if __name__ == "__main__":
    main()
