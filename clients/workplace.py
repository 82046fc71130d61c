"""What a node holds for a run: the frozen base, its structure, the tokenised text and who owns which part of it."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from slimfed.clients.adapters.lora import AdaptedModel
from slimfed.clients.batches import TokenisedSplit, probe_batches, tokenise, training_batches
from slimfed.clients.blueprint import discover
from slimfed.clients.data import load_data
from slimfed.clients.evaluation import evaluate
from slimfed.clients.messages import Failure, Orders
from slimfed.clients.models import LoadedModel, load_model
from slimfed.clients.partition import partition
from slimfed.clients.seeds import derive
from slimfed.clients.slicing import narrow
from slimfed.clients.spec import TaskSpec
from slimfed.clients.structure import Blueprint
from slimfed.clients.trainer import DeviceData, train_device
from slimfed.clients.update import Adapter, Assignment, Evaluation, Update

_PROBE_BATCHES = 2
_EVALUATION_BATCH = 64


@dataclass(frozen=True)
class Workplace:
    """Everything a node needs to serve any device of one run; opened once a process."""

    task: TaskSpec
    base: LoadedModel
    blueprint: Blueprint
    train: TokenisedSplit
    test: TokenisedSplit
    parts: tuple[np.ndarray, ...]

    def serve(self, orders: Orders) -> list[Update | Failure]:
        """Train the assigned devices one after another; one that fails does not harm the others."""
        return [self._serve_device(orders, assignment) for assignment in orders.assignments]

    def evaluate(self, adapted: AdaptedModel) -> Evaluation:
        """A device's own model on the test split."""
        return evaluate(adapted.model, self.test, _EVALUATION_BATCH)

    def data(self, assignment: Assignment) -> DeviceData:
        """The assigned device's own rows: batches in an order of the round's seed, probe batches that never change."""
        rows = self.parts[assignment.device]
        size = self.task.training.batch_size
        fixed = derive(self.task.seed, "probe", assignment.device)
        return DeviceData(
            batches=training_batches(self.train, rows, size, assignment.seed),
            probe=tuple(probe_batches(self.train, rows, size, _PROBE_BATCHES, fixed)),
            examples=len(rows),
        )

    def _serve_device(self, orders: Orders, assignment: Assignment) -> Update | Failure:
        adapter = self._own(orders, assignment)
        try:
            return train_device(
                self.base,
                self.blueprint,
                self.task,
                assignment,
                adapter,
                orders.scores,
                self.data(assignment),
                self.evaluate,
            )
        except (RuntimeError, ValueError) as error:  # one device's trouble, such as memory, is not its node's
            return Failure(assignment.device, f"{type(error).__name__}: {error}")

    @staticmethod
    def _own(orders: Orders, assignment: Assignment) -> Adapter:
        return narrow(orders.adapter, orders.envelope, assignment.structure, assignment.rank)


@lru_cache(maxsize=2)
def open_workplace(task: TaskSpec) -> Workplace:
    """The workplace of a task, the same object for the same task while the process lives.

    Uses the accelerator if there is one; on a CPU one thread, since a node is one of several workers of a machine and
    the order of a sum must not depend on how many there are.
    """
    text = load_data(task.data, task.model.task)
    base = load_model(task.model, text.labels, task.seed)
    if torch.cuda.is_available():
        base.model.to("cuda")
    else:
        torch.set_num_threads(1)
    return Workplace(
        task,
        base,
        discover(base.model),
        tokenise(text.train, base.tokenizer, task.data.max_length),
        tokenise(text.test, base.tokenizer, task.data.max_length),
        tuple(partition(text, task.data.partition, task.devices, task.seed)),
    )
