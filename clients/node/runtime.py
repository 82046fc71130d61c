"""What a node holds for a run: the frozen base, its structure, the tokenised text and who owns which part of it."""

import logging
import secrets
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from transformers import PreTrainedModel

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.adapters.rank_pruning import self_pruned
from slimfed.clients.adapters.training.broadcast import Broadcast
from slimfed.clients.adapters.training.lora import attach, zero_factors
from slimfed.clients.adapters.training.merging import changed
from slimfed.clients.data.batching import TokenisedSplit, probe_batches, tokenise, training_batches
from slimfed.clients.data.text import TextData, load_data, load_own_data
from slimfed.clients.errors import InputError
from slimfed.clients.evaluation.generation import Prompts, collect, complete, likeness
from slimfed.clients.evaluation.metrics import evaluate
from slimfed.clients.importance import IMPORTANCE
from slimfed.clients.messages.quantization import compensated, kept
from slimfed.clients.messages.records import Orders
from slimfed.clients.models.attention import ENCODER_ATTENTION
from slimfed.clients.models.discovery import discover
from slimfed.clients.models.families import ENCODERS
from slimfed.clients.models.loading import BUILTIN, LoadedModel, load_model
from slimfed.clients.node.identity import HostedDevice
from slimfed.clients.privacy import localised
from slimfed.clients.pruning.adapter_slicing import narrow, widen
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.clients.seeds import derive
from slimfed.clients.sources.hub import is_local
from slimfed.clients.spec import TaskSpec
from slimfed.clients.stopwatch import Stopwatch
from slimfed.clients.structure import Blueprint, Structure
from slimfed.clients.training.cohort.evaluation import evaluate_cohort, together
from slimfed.clients.training.determinism import insist_on_determinism
from slimfed.clients.training.engine import train
from slimfed.clients.training.out_of_memory import is_out_of_memory, make_room, with_room
from slimfed.clients.training.work import CohortWork, DeviceContext, DeviceData
from slimfed.clients.update import Assignment, Evaluation, Failure, Update

_log = logging.getLogger(__name__)
_PROBE_BATCHES = 2


@dataclass(frozen=True)
class NodeRuntime:
    """Everything a node needs to serve any device of one run; opened once a process."""

    task: TaskSpec
    base: LoadedModel
    blueprint: Blueprint
    train: TokenisedSplit
    test: TokenisedSplit
    parts: Mapping[int, np.ndarray]
    sample: np.ndarray
    prompts: Prompts | None

    def serve(self, orders: Orders, watch: Stopwatch) -> list[Update | Failure]:
        """Train the assigned devices, and measure the models of those that are to be measured.

        A residual is the same for all of them, so it goes into the base that they share, once a message.
        ``watch`` learns where the time went.
        """
        if orders.adapter.residual:
            base = changed(self.base.model, widen(orders.adapter, orders.envelope).residual)
            there = replace(self, base=replace(self.base, model=base))
            return there.serve(replace(orders, adapter=replace(orders.adapter, residual={})), watch)
        assignments = orders.assignments
        structures, ranks = [a.structure for a in assignments], [a.rank for a in assignments]
        adapters = Broadcast(orders.adapter, orders.envelope, structures, ranks)
        data = [self.data(assignment) for assignment in assignments]
        context = DeviceContext(self.base, self.blueprint, self.task, watch)
        results = train(context, CohortWork(assignments, adapters, orders.scores, data))
        if self.task.adapter.keep_ranks < 1:
            results = [self._self_pruned(r, orders) if isinstance(r, Update) else r for r in results]
        with watch.phase("evaluate"):
            measured = self._evaluated(
                results, {assignment.device for assignment in assignments if assignment.evaluate}
            )
        if self.task.privacy.kind == "local":
            measured = [self._localised(r, orders) if isinstance(r, Update) else r for r in measured]
        upload = ADAPTERS[self.task.adapter.name].upload
        sent = [replace(r, adapter=upload(r.adapter)) if isinstance(r, Update) else r for r in measured]
        if self.task.messages.precision != "fp32":
            sent = [self._rounded(r, orders) if isinstance(r, Update) else r for r in sent]
        return sent

    def evaluate(self, adapter: Adapter, structure: Structure, rows: np.ndarray | None = None) -> Evaluation:
        """The base, sliced to ``structure``, with ``adapter`` in that shape, on ``rows`` of the test split (or all)."""
        return with_room(lambda: evaluate(self._sliced(adapter, structure), self.test, dtype=self._dtype, rows=rows))

    def examine(self, adapter: Adapter, structure: Structure) -> Evaluation:
        """As :meth:`evaluate` on the whole test split, and what the model writes, if the test split has prompts."""
        model = with_room(lambda: self._sliced(adapter, structure))
        found = with_room(lambda: evaluate(model, self.test, dtype=self._dtype))
        if self.prompts is None:
            return found
        longest = self.task.generate.max_new_tokens
        prompts, tokenizer = self.prompts, self.base.tokenizer
        written = with_room(lambda: complete(model, tokenizer, prompts, longest, self._dtype))
        return replace(found, **vars(likeness(written, prompts.references)), generated=len(written))

    def scores_of_base(self) -> np.ndarray | None:
        """Importance of all units of the unpruned base, float32 [units]; None if the criterion needs data for that."""
        criterion = IMPORTANCE[self.task.pruning.importance]
        if criterion.needs_data:
            return None
        dense = self.blueprint.dense()
        nothing = Adapter(zero_factors(self.base.model, self.blueprint.modules, rank=1), {})
        model = attach(slice_model(self.base.model, dense), nothing, self.task.adapter)
        importance = criterion(self.blueprint, [derive(self.task.seed, "base")])
        importance.watch(model, [dense], dense)
        return importance.score().float().cpu().numpy()

    def data(self, assignment: Assignment) -> DeviceData:
        """The assigned device's own rows: batches drawn by its seed of the round, probe batches that never change."""
        rows, size = self.parts[assignment.device], self.task.training.batch_size
        steps, turn = assignment.local_steps, derive(self.task.seed, "lengths", assignment.round)
        fixed = derive(self.task.seed, "probe", assignment.device)
        return DeviceData(
            batches=lambda: training_batches(self.train, rows, size, steps, assignment.seed, turn),
            probe=probe_batches(self.train, rows, size, _PROBE_BATCHES, fixed),
            examples=len(rows),
        )

    @property
    def _dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.task.dtype == "bf16" else torch.float32

    def _sliced(self, adapter: Adapter, structure: Structure) -> PreTrainedModel:
        method = ADAPTERS[self.task.adapter.name]
        return method.training.build(self.base.model, structure, method.finished(adapter), self.task.adapter)

    def _self_pruned(self, update: Update, orders: Orders) -> Update:
        sent = narrow(orders.adapter, orders.envelope, update.report.structure, update.report.rank)
        return self_pruned(update, sent, self.task.adapter)

    def _localised(self, update: Update, orders: Orders) -> Update:
        """What may leave under local privacy; its noise is nobody's to know, so the run's seed has no part in it."""
        sent = narrow(orders.adapter, orders.envelope, update.report.structure, update.report.rank)
        return localised(update, sent, self.task.privacy, np.random.default_rng(secrets.randbits(256)))

    def _rounded(self, update: Update, orders: Orders) -> Update:
        """As it can travel, with what its device could not send before."""
        memory = orders.memories.get(update.device)
        if memory is not None:
            start = next(a.structure for a in orders.assignments if a.device == update.device)
            memory = kept(memory, start, update.report.structure, update.report.rank)
        adapter, memory = compensated(update.adapter, memory, self.task.messages.precision)
        return replace(update.with_report(memory=memory), adapter=adapter)

    def _evaluated(self, results: Sequence[Update | Failure], devices: Set[int]) -> list[Update | Failure]:
        """``results``, with the accuracy of the models of ``devices``; in cohorts where they can be."""
        own = [r for r in results if isinstance(r, Update) and r.device in devices]
        if not len(self.sample):  # a real device need not keep a test file
            return list(results)
        found: dict[int, Evaluation] = {}
        if together(self.task, [update.adapter for update in own]):
            for start in range(0, len(own), self.task.cohort_size):
                part = own[start : start + self.task.cohort_size]
                found |= zip((update.device for update in part), self._measured(part), strict=True)
        else:
            found = {u.device: self.evaluate(u.adapter, u.report.structure, self.sample) for u in own}
        return [r.with_report(evaluation=found.get(r.device)) if isinstance(r, Update) else r for r in results]

    def _measured(self, updates: Sequence[Update]) -> list[Evaluation]:
        """What one pass over ``updates`` measures; where memory does not suffice, two over the halves."""

        def measured() -> list[Evaluation]:
            return evaluate_cohort(DeviceContext(self.base, self.blueprint, self.task), updates, self.test, self.sample)

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
        return self._measured(updates[:half]) + self._measured(updates[half:])


@lru_cache(maxsize=2)
def open_runtime(task: TaskSpec) -> NodeRuntime:
    """The runtime of a task, the same object for the same task while the process lives.

    Uses the accelerator if there is one; on a CPU one thread, since a node is one of several workers of a machine and
    the order of a sum must not depend on how many there are.
    """
    # Here: it brings seconds of imports that a real node can do without.
    from slimfed.clients.data.partition import partition

    text = load_data(task.data, task.model.task)
    return _runtime(task, text, dict(enumerate(partition(text, task.data.partition, task.devices, task.seed))))


@lru_cache(maxsize=2)
def open_server_runtime(task: TaskSpec) -> NodeRuntime:
    """The server's runtime where devices have text of their own: nothing is divided, and the labels are its text's.

    Its ``task`` carries the labels, to be sent.
    """
    text = load_data(task.data, task.model.task)
    return _runtime(task.model_copy(update={"labels": text.labels}), text, {})


@lru_cache(maxsize=2)
def open_hosted_runtime(task: TaskSpec, own: HostedDevice) -> NodeRuntime:
    """The runtime of a task on a real device. Raises :class:`InputError`.

    The server says what is trained, but names no place on this machine: a model folder is the owner's to name.
    """
    path = own.model or task.model.path
    if own.model is None and not path.startswith(BUILTIN) and is_local(path):
        raise InputError(f"model.path = {path!r}: is a folder; say on the node where it lies, node-config model=FOLDER")
    task = task.model_copy(update={"model": task.model.model_copy(update={"path": path})})
    text = load_own_data(task.data, task.model.task, own.data, task.labels)
    return _runtime(task, text, {own.device: np.arange(len(text.train))})


def _runtime(task: TaskSpec, text: TextData, parts: Mapping[int, np.ndarray]) -> NodeRuntime:
    """A runtime with ``text``, of which device d owns the training rows ``parts[d]``."""
    base = load_model(task.model, text.labels, task.seed)
    if torch.cuda.is_available():
        if task.deterministic:
            insist_on_determinism()
        base.model.to("cuda")
    else:
        torch.set_num_threads(1)
        if task.dtype == "bf16":
            encoder = base.model.config.model_type in ENCODERS
            base.model.set_attn_implementation(ENCODER_ATTENTION if encoder else "eager")
    blueprint = discover(base.model)
    return NodeRuntime(
        task,
        base,
        blueprint,
        tokenise(text.train, base.tokenizer, task.data.max_length),
        tokenise(text.test, base.tokenizer, task.data.max_length),
        parts,
        _sample(len(text.test), task),
        collect(text.test, base.tokenizer, task.generate, task.data.max_length, derive(task.seed, "prompts")),
    )


def _sample(examples: int, task: TaskSpec) -> np.ndarray:
    """Rows of the test split on which devices' own models are measured, the same for all devices and rounds."""
    count = min(examples, task.device_examples or examples)
    return np.sort(np.random.default_rng(derive(task.seed, "sample")).permutation(examples)[:count])
