"""Evaluation of the devices' models on the test split of a node."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.data.batching import TokenisedSplit
from slimfed.clients.evaluation.metrics import evaluate
from slimfed.clients.structure import Structure
from slimfed.clients.training.cohort.evaluation import evaluate_cohort, together
from slimfed.clients.training.out_of_memory import is_out_of_memory, make_room, with_room
from slimfed.clients.training.work import DeviceContext
from slimfed.clients.update import Evaluation, Update

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelEvaluator:
    """Evaluates models made of the context's base on ``test``, one by one or in cohorts."""

    context: DeviceContext
    test: TokenisedSplit

    @property
    def dtype(self) -> torch.dtype:
        """Type of evaluation: bfloat16 under autocast, or float32 for the base's own type."""
        return torch.bfloat16 if self.context.task.dtype == "bf16" else torch.float32

    def model(self, adapter: Adapter, structure: Structure) -> PreTrainedModel:
        """The base, sliced to ``structure``, with ``adapter`` (in that shape) in it."""
        spec = self.context.task.adapter
        method = ADAPTERS[spec.name]
        return method.training.build(self.context.base.model, structure, method.finished(adapter), spec)

    def one(self, adapter: Adapter, structure: Structure, rows: np.ndarray | None = None) -> Evaluation:
        """The model of one device on ``rows`` of the test split; None: on all of it."""
        return with_room(lambda: evaluate(self.model(adapter, structure), self.test, dtype=self.dtype, rows=rows))

    def many(self, updates: Sequence[Update], rows: np.ndarray) -> list[Evaluation]:
        """The models of ``updates`` on the same ``rows``, in cohorts if possible."""
        task = self.context.task
        if not together(task, [update.adapter for update in updates]):
            return [self.one(update.adapter, update.report.structure, rows) for update in updates]
        found: list[Evaluation] = []
        for start in range(0, len(updates), task.cohort_size):
            found += self._one_pass(updates[start : start + task.cohort_size], rows)
        return found

    def _one_pass(self, updates: Sequence[Update], rows: np.ndarray) -> list[Evaluation]:
        """Evaluations of ``updates`` by one pass, or by two passes over halves if memory does not suffice."""

        def measured() -> list[Evaluation]:
            return evaluate_cohort(self.context, updates, self.test, rows)

        if len(updates) == 1:
            return with_room(measured)
        try:
            return measured()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            _log.warning("%d models at once do not fit into memory, two halves are measured: %s", len(updates), error)
        make_room()
        half = (len(updates) + 1) // 2
        return self._one_pass(updates[:half], rows) + self._one_pass(updates[half:], rows)
