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
from slimfed.clients.evaluation.generation import Prompts, complete, prompts_at_once
from slimfed.clients.evaluation.metrics import evaluate, pass_tokens
from slimfed.clients.structure import Structure
from slimfed.clients.training.cohort.evaluation import evaluate_cohort, together
from slimfed.clients.training.cohort.first_token import read_first_token
from slimfed.clients.training.cohort.model import supports
from slimfed.clients.training.out_of_memory import is_out_of_memory, make_room, with_room, with_smaller
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
        model = method.training.build(self.context.base.model, structure, method.finished(adapter), spec)
        read_first_token(model, self.context.blueprint)
        return model

    def measure(self, model: PreTrainedModel, rows: np.ndarray | None = None) -> Evaluation:
        """``model`` on ``rows`` of the test split (None: all), in smaller batches if memory does not suffice."""
        rows = np.arange(len(self.test)) if rows is None else rows
        tokens = pass_tokens(model, model.device, self.test, rows)
        least = int(self.test.lengths[rows].max(initial=1))
        meter, before = self.context.meter, self.context.meter.rows_done

        def measured(size: int) -> Evaluation:
            meter.rows_done = before
            return evaluate(model, self.test, size, self.dtype, rows, meter.evaluate)

        return with_smaller(measured, tokens, least)

    def one(self, adapter: Adapter, structure: Structure, rows: np.ndarray | None = None) -> Evaluation:
        """The model of one device on ``rows`` of the test split; None: on all of it."""
        return self.measure(with_room(lambda: self.model(adapter, structure)), rows)

    def complete(self, model: PreTrainedModel, prompts: Prompts) -> list[str]:
        """What ``model`` writes for ``prompts``. Fewer at once are tried if memory does not suffice."""
        tokenizer, longest = self.context.base.tokenizer, self.context.task.generate.max_new_tokens
        rows = prompts_at_once(model, prompts, longest)
        meter = self.context.meter

        def written(size: int) -> list[str]:
            meter.expect(len(prompts), "prompts")
            return complete(model, tokenizer, prompts, longest, self.dtype, size, meter.evaluate)

        return with_smaller(written, rows)

    def many(self, updates: Sequence[Update], rows: np.ndarray) -> list[Evaluation]:
        """The models of ``updates`` on the same ``rows``, in cohorts if possible."""
        task, base = self.context.task, self.context.base
        adapters = [update.adapter for update in updates]
        if not together(task, adapters) or not supports(base.model, base.head):
            return [self.one(update.adapter, update.report.structure, rows) for update in updates]
        found: list[Evaluation] = []
        for start in range(0, len(updates), task.cohort_size):
            found += self._one_pass(updates[start : start + task.cohort_size], rows)
        return found

    def _one_pass(self, updates: Sequence[Update], rows: np.ndarray) -> list[Evaluation]:
        """Evaluations of ``updates`` by one pass, or by two passes over halves if memory does not suffice."""

        before = self.context.meter.rows_done

        def measured() -> list[Evaluation]:
            self.context.meter.rows_done = before
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
        self.context.meter.rows_done = before
        half = (len(updates) + 1) // 2
        return self._one_pass(updates[:half], rows) + self._one_pass(updates[half:], rows)
