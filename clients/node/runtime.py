"""A node's state for a run: the frozen base, its blueprint, the tokenised text and its division among devices."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import torch

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.adapters.training.broadcast import Broadcast
from slimfed.clients.adapters.training.lora import attach, zero_factors
from slimfed.clients.adapters.training.merging import changed
from slimfed.clients.allocation import ALLOCATIONS
from slimfed.clients.data.batching import TokenisedSplit, probe_batches, tokenise, training_batches
from slimfed.clients.data.chat import use_template
from slimfed.clients.data.sample import sample_rows
from slimfed.clients.data.split import TextSplit
from slimfed.clients.data.text import TextData, load_data, load_own_data
from slimfed.clients.errors import InputError
from slimfed.clients.evaluation.generation import Prompts, collect, likeness, some_samples
from slimfed.clients.importance import IMPORTANCE
from slimfed.clients.importance.base import Importance
from slimfed.clients.inputs import check_inputs
from slimfed.clients.messages.records import Orders
from slimfed.clients.models.attention import ENCODER_ATTENTION
from slimfed.clients.models.discovery import discover
from slimfed.clients.models.families import ENCODERS
from slimfed.clients.models.loading import LoadedModel, load_model
from slimfed.clients.models.location import BUILTIN
from slimfed.clients.node.evaluator import ModelEvaluator
from slimfed.clients.node.identity import HostedDevice
from slimfed.clients.node.layer_shares import MeasureShares, calibration_batches, measured_on
from slimfed.clients.node.transforms import EvaluateModels, Privatise, PruneRanks, Quantise, UpdateTransform, Upload
from slimfed.clients.pruning.adapter_slicing import narrow, widen
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.clients.seeds import derive
from slimfed.clients.sources.hub import is_local
from slimfed.clients.spec import TaskSpec
from slimfed.clients.structure import Blueprint, Structure
from slimfed.clients.telemetry.meter import Meter
from slimfed.clients.telemetry.stopwatch import Stopwatch
from slimfed.clients.training.determinism import insist_on_determinism
from slimfed.clients.training.engine import train
from slimfed.clients.training.out_of_memory import with_room
from slimfed.clients.training.teacher import Teacher, open_teacher
from slimfed.clients.training.work import CohortWork, DeviceContext, DeviceData
from slimfed.clients.update import Assignment, Evaluation, Failure, Update

_PROBE_BATCHES = 2

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NodeRuntime:
    """Everything a node needs to serve any device of one run; opened once a process.

    ``test``: the split that rounds are evaluated on. ``held_out``: the test split, if that is a validation split.
    ``teacher``: what devices are held to, if anything.
    """

    task: TaskSpec
    base: LoadedModel
    blueprint: Blueprint
    train: TokenisedSplit
    test: TokenisedSplit
    parts: Mapping[int, np.ndarray]
    sample: np.ndarray
    prompts: Prompts | None
    held_out: TextSplit | None = None
    teacher: Teacher | None = None

    def serve(self, orders: Orders, watch: Stopwatch, meter: Meter | None = None) -> list[Update | Failure]:
        """Train the assigned devices and prepare their updates for sending; one result for each device, in order.

        ``watch`` counts time by phase, ``meter`` work that is done. The steps:

        1. put the residual, which is the same for all devices, into the base that they share;
        2. give each device its work: its part of the adapter, and its data;
        3. train, in cohorts or one by one;
        4. transform what was learnt, step by step, into what is sent.
        """
        base, orders = self._with_residual(orders)
        context = DeviceContext(base, self.blueprint, self.task, watch, meter or Meter(), self.teacher)
        results = train(context, self._work(orders))
        updates = [result for result in results if isinstance(result, Update)]
        for transform in self._transforms(context):
            updates = transform(updates, orders)
        ready = iter(updates)
        return [next(ready) if isinstance(result, Update) else result for result in results]

    def _with_residual(self, orders: Orders) -> tuple[LoadedModel, Orders]:
        """The base with the residual of ``orders`` in it, and the orders without."""
        if not orders.adapter.residual:
            return self.base, orders
        model = changed(self.base.model, widen(orders.adapter, orders.envelope).residual)
        return replace(self.base, model=model), replace(orders, adapter=replace(orders.adapter, residual={}))

    def _work(self, orders: Orders) -> CohortWork:
        """The work of each device of ``orders``."""
        assignments = orders.assignments
        structures, ranks = [a.structure for a in assignments], [a.rank for a in assignments]
        adapters = Broadcast(orders.adapter, orders.envelope, structures, ranks)
        return CohortWork(assignments, adapters, orders.scores, [self.data(each) for each in assignments])

    def _transforms(self, context: DeviceContext) -> list[UpdateTransform]:
        """The transforms of updates between training and sending, in order.

        What the layers' shares need is measured on the adapter that was sent. Ranks are pruned first, so that the final
        model is evaluated. Privacy follows, since it removes the evaluation.
        Rounding is last, so that the rounding error is that of the sent adapter.
        """
        task = self.task
        transforms: list[UpdateTransform] = []
        if ALLOCATIONS[task.pruning.allocation].measures:
            transforms.append(MeasureShares(context, self.train, self.parts))
        if task.adapter.keep_ranks < 1:
            transforms.append(PruneRanks(task.adapter))
        transforms.append(EvaluateModels(ModelEvaluator(context, self.test), self.sample))
        if task.privacy.kind == "local":
            transforms.append(Privatise(task.privacy))
        transforms.append(Upload(ADAPTERS[task.adapter.name]))
        if task.messages.precision != "fp32":
            transforms.append(Quantise(task.messages.precision))
        return transforms

    def _evaluator(self, meter: Meter | None = None) -> ModelEvaluator:
        return ModelEvaluator(
            DeviceContext(self.base, self.blueprint, self.task, Stopwatch(), meter or Meter()), self.test
        )

    def evaluate(self, adapter: Adapter, structure: Structure, rows: np.ndarray | None = None) -> Evaluation:
        """The base, sliced to ``structure``, with ``adapter`` in that shape, on ``rows`` of the test split (or all)."""
        return self._evaluator().one(adapter, structure, rows)

    def examine(
        self,
        adapter: Adapter,
        structure: Structure,
        examples: int = 0,
        meter: Meter | None = None,
        *,
        write: bool = True,
    ) -> Evaluation:
        """As :meth:`evaluate` on ``examples`` of the test split, and of completions, if the test split has prompts.

        The examples are a sample by the run's seed, the same in every call, proportional by label; 0: all.
        ``meter`` counts those that are done. ``write``: false for no completions.
        """
        meter = meter or Meter()
        evaluator = self._evaluator(meter)
        model = with_room(lambda: evaluator.model(adapter, structure))
        rows = self._examined(examples)
        meter.expect(len(rows))
        found = replace(evaluator.measure(model, rows), test_examples=len(self.test))
        if self.prompts is None or not write:
            return found
        written = evaluator.complete(model, self.prompts)
        samples = some_samples(self.base.tokenizer, self.prompts, written)
        alike = vars(likeness(written, self.prompts.references))
        return replace(found, **alike, generated=len(written), samples=samples)

    def majority_accuracy(self, examples: int = 0) -> float | None:
        """The share of the same ``examples`` of the test split that have the most frequent label of the training split.

        The first of equally frequent ones; None without labels.
        """
        known, asked = self.train.labels, self.test.labels
        if known is None or asked is None:
            return None
        return float(np.mean(asked[self._examined(examples)] == np.bincount(known).argmax()))

    def _examined(self, examples: int) -> np.ndarray:
        """The rows of the test split on which the global model is measured: a sample by the run's seed; 0: all."""
        return sample_rows(len(self.test), examples, derive(self.task.seed, "global sample"), self.test.labels)

    def on_held_out(self) -> "NodeRuntime | None":
        """The runtime whose :meth:`examine` measures on the held-out test split; None without one."""
        text = self.held_out
        if text is None:
            return None
        task, tokenizer = self.task, self.base.tokenizer
        prompts = collect(text, tokenizer, task.generate, task.data.max_length, derive(task.seed, "prompts"))
        tokens = tokenise(text, tokenizer, task.data.max_length)
        return replace(self, test=tokens, sample=_sample(len(text), task), prompts=prompts, held_out=None)

    def scores_of_base(self) -> np.ndarray | None:
        """Importance of all units of the unpruned base, float32 [units]; None if the criterion needs data."""
        criterion = IMPORTANCE[self.task.pruning.importance]
        return None if criterion.needs_data else self._scores_of_base(criterion)

    @cached_property
    def scores_by_magnitude(self) -> np.ndarray:
        """Importance of all units of the unpruned base by its weights, float32 [units]."""
        return self._scores_of_base(IMPORTANCE["magnitude"])

    def measured_by_server(self, adapter: Adapter, structure: Structure) -> np.ndarray:
        """What ``pruning.allocation`` measures on the server's own text, float64 [1 + blocks], before round 1.

        In a simulation the text is the validation split, as training text is the devices'; else the server's training
        split. ``adapter``: all coordinates.
        """
        task = self.task
        split = self.train if self.held_out is None else self.test
        seed = derive(task.seed, "calibration")
        text = calibration_batches(
            split, np.arange(len(split)), task.calibration.tokens, task.training.batch_size, seed
        )
        context = DeviceContext(self.base, self.blueprint, task)
        return measured_on(context, narrow(adapter, self.blueprint.dense(), structure), structure, text, seed)

    def _scores_of_base(self, criterion: type[Importance]) -> np.ndarray:
        dense = self.blueprint.dense()
        nothing = Adapter(zero_factors(self.base.model, self.blueprint.modules, rank=1), {})
        model = attach(slice_model(self.base.model, dense), nothing, self.task.adapter)
        importance = criterion(self.blueprint, [derive(self.task.seed, "base")])
        importance.watch(model, [dense], dense)
        return importance.score().float().cpu().numpy()

    def data(self, assignment: Assignment) -> DeviceData:
        """Data of the assigned device: batches drawn by its seed of the round, and fixed probe batches."""
        rows, size = self.parts[assignment.device], self.task.training.batch_size
        steps, turn = assignment.local_steps, derive(self.task.seed, "lengths", assignment.round)
        fixed = derive(self.task.seed, "probe", assignment.device)
        return DeviceData(
            batches=lambda: training_batches(self.train, rows, size, steps, assignment.seed, turn),
            probe=probe_batches(self.train, rows, size, _PROBE_BATCHES, fixed),
            examples=len(rows),
        )


@lru_cache(maxsize=2)
def open_runtime(task: TaskSpec) -> NodeRuntime:
    """The runtime of a task, cached in the process; with ``task.inputs``, files that have changed are another task's.

    Uses the accelerator if there is one; on a CPU one thread, since a machine runs several workers, and sums must not
    depend on their number.
    """
    # Imported here, since it takes seconds and a real node does not need it.
    from slimfed.clients.data.partition import partition

    check_inputs(task)
    text = load_data(task.data, task.model.task, task.seed)
    return _runtime(task, text, dict(enumerate(partition(text, task.data.partition, task.devices, task.seed))))


@lru_cache(maxsize=2)
def open_server_runtime(task: TaskSpec) -> NodeRuntime:
    """The server's runtime if devices have their own text: text is not divided, and labels are those of its text.

    Its ``task`` carries the labels, to be sent, and nothing of the server's own files.
    """
    check_inputs(task)
    text = load_data(task.data, task.model.task, task.seed)
    return _runtime(task.model_copy(update={"labels": text.labels, "inputs": ""}), text, {})


@lru_cache(maxsize=2)
def open_hosted_runtime(task: TaskSpec, own: HostedDevice) -> NodeRuntime:
    """The runtime of a task on a real device. Raises :class:`InputError`.

    The server chooses the model but no folder on this machine; only the device's owner names a folder.
    """
    path = own.model or task.model.path
    if own.model is None and not path.startswith(BUILTIN) and is_local(path):
        raise InputError(f"model.path = {path!r}: is a folder; say on the node where it lies, node-config model=FOLDER")
    task = task.model_copy(update={"model": task.model.model_copy(update={"path": path})})
    text = load_own_data(task.data, task.model.task, own.data, task.labels)
    for dropped in text.dropped:
        _log.warning("%s", dropped)
    return _runtime(task, text, {own.device: np.arange(len(text.train))})


def _runtime(task: TaskSpec, text: TextData, parts: Mapping[int, np.ndarray]) -> NodeRuntime:
    """A runtime with ``text``, of which device d owns the training rows ``parts[d]``."""
    base = load_model(task.model, text.labels, task.seed)
    use_template(base.tokenizer, task.data)
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
    teacher = open_teacher(task.training, task.model, text.labels, base, blueprint)
    if teacher is not None:
        teacher.model.to(base.model.device)
    return NodeRuntime(
        task,
        base,
        blueprint,
        tokenise(text.train, base.tokenizer, task.data.max_length),
        tokenise(text.judge, base.tokenizer, task.data.max_length),
        parts,
        _sample(len(text.judge), task),
        collect(text.judge, base.tokenizer, task.generate, task.data.max_length, derive(task.seed, "prompts")),
        None if text.validation is None else text.test,
        teacher,
    )


def _sample(examples: int, task: TaskSpec) -> np.ndarray:
    """Rows of the test split on which devices' own models are measured, the same for all devices and rounds."""
    count = min(examples, task.device_examples or examples)
    return np.sort(np.random.default_rng(derive(task.seed, "sample")).permutation(examples)[:count])
