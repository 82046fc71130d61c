"""How far the model of a run can be pruned at once, without training after it: quality over sparsity, and its knee.

After the essential sparsity of pre-trained models (Jaiswal et al., arXiv 2306.03805). That is of single weights by
their size, and here whole heads and channels go, so that the figures of the two cannot be compared.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.allocation import ALLOCATIONS
from slimfed.clients.allocation.choosing import select_allocated
from slimfed.clients.errors import InputError
from slimfed.clients.importance import IMPORTANCE
from slimfed.clients.node.layer_shares import calibration_batches, measured_on
from slimfed.clients.node.runtime import NodeRuntime, open_runtime
from slimfed.clients.processors import processor_count
from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.clients.seeds import derive
from slimfed.clients.spec import TaskSpec
from slimfed.clients.training.single_device import train_device
from slimfed.clients.training.work import DeviceContext, DeviceWork
from slimfed.clients.update import Assignment, Evaluation
from slimfed.platform.export import Exporter
from slimfed.platform.job.job import Job
from slimfed.platform.server.evaluator import GlobalEvaluator
from slimfed.strategies.server_state import Fleet

GRID = tuple(step / 10 for step in range(10))
"""The sparsities that are looked at."""

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Question:
    """What is asked of a run.

    ``criteria``: names of the importance registry; ``allocations``: of allocations. ``examples``: of the split that the
    run is evaluated on; 0: all. ``devices``, ``steps``: how many devices score on how many batches of their text each;
    as many measure what allocations need, on as many tokens as the job says. ``tolerance``: the loss of quality that
    does not count: of accuracy in shares, of text in nats a token.
    """

    criteria: tuple[str, ...]
    allocations: tuple[str, ...] = ("equal",)
    examples: int = 500
    devices: int = 8
    steps: int = 10
    tolerance: float | None = None


@dataclass(frozen=True)
class Fall:
    """The fall of quality under one criterion and one allocation, over ascending ``sparsities`` that were reached.

    ``qualities`` and mean ``losses`` (nats) belong to these. ``knee``: the largest sparsity whose quality is within the
    tolerance of the first, interpolated. ``bend``: the sparsity after which the fall steepens most, by the second
    difference; None if there are fewer than three points.
    """

    criterion: str
    sparsities: tuple[float, ...]
    qualities: tuple[float, ...]
    knee: float
    bend: float | None
    allocation: str = "equal"
    losses: tuple[float, ...] = ()


@dataclass(frozen=True)
class Knees:
    """The answer. ``measure``: "accuracy", in [0, 1], or "loss", in nats a token, of which less is better."""

    run: str
    measure: str
    tolerance: float
    split: str
    examples: int
    falls: tuple[Fall, ...]


def find_knees(exporter: Exporter, question: Question, told: Callable[[str], object] = lambda _: None) -> Knees:
    """Prune the global model of a run at once to each sparsity of :data:`GRID`, in each way, and measure it.

    A way is a criterion and an allocation; one that bounds what a block loses ends at that bound. Scores come from the
    training text of a seeded sample of the run's devices, and the figures from the split that its rounds were evaluated
    on. Nothing is trained or written. ``told`` is told what is under way. Raises ``InputError``.
    """
    job, fleet = exporter.job, exporter.fleet
    _check(job, question, exporter.run.id)
    runtime = open_runtime(_plain(job.task_spec()))
    evaluator = GlobalEvaluator(runtime, processor_count())
    measure = "accuracy" if job.model.task == "classification" else "loss"
    tolerance = question.tolerance
    if tolerance is None:
        tolerance = 0.01 if measure == "accuracy" else math.log(1.05)
    whole = evaluator.evaluate(fleet.adapter, fleet.structure, question.examples)
    falls = []
    told("measuring the layers")
    shares = {name: _measured(runtime, fleet, name, question, job.seed) for name in question.allocations}
    for criterion in question.criteria:
        told(f"scoring by {criterion}")
        scores = scored(runtime, fleet, criterion, question, job.seed)
        for allocation in question.allocations:
            points = [(fleet.structure.sparsity, whole)]
            for sparsity in (each for each in GRID if each > fleet.structure.sparsity + _ROUNDING):
                told(f"{criterion}, {allocation}: {sparsity:.0%} of 90%")
                asked = {"allocation": allocation, "target_sparsity": sparsity}
                pruning = runtime.task.pruning.model_copy(update=asked)
                structure = select_allocated(fleet.structure, scores, sparsity, pruning, shares[allocation])
                if structure.sparsity > points[-1][0] + _ROUNDING:
                    points.append((structure.sparsity, evaluator.evaluate(fleet.adapter, structure, question.examples)))
            qualities = [(reached, _quality(found, measure)) for reached, found in points]
            fall = fall_of(criterion, qualities, tolerance, higher=measure == "accuracy")
            falls.append(replace(fall, allocation=allocation, losses=tuple(found.loss for _, found in points)))
    split = "validation" if job.data.validation == "use" else "test"
    return Knees(exporter.run.id, measure, tolerance, split, whole.examples, tuple(falls))


def fall_of(criterion: str, points: Sequence[tuple[float, float]], tolerance: float, *, higher: bool) -> Fall:
    """The fall through ``points`` (sparsity, quality), the first unpruned; ``higher``: more quality is better."""
    sparsities, qualities = (tuple(values) for values in zip(*points, strict=True))
    lost = [(qualities[0] - quality) * (1 if higher else -1) for quality in qualities]
    bend = None
    if len(points) > 2:
        slopes = np.diff(lost) / np.diff(sparsities)
        bend = sparsities[1 + int(np.argmax(np.diff(slopes)))]
    return Fall(criterion, sparsities, qualities, _last_within(sparsities, lost, tolerance), bend)


def _last_within(sparsities: Sequence[float], lost: Sequence[float], tolerance: float) -> float:
    """Where the loss first exceeds the tolerance, on the line between two points; else the last sparsity."""
    for index in range(1, len(lost)):
        if lost[index] > tolerance:
            share = (tolerance - lost[index - 1]) / (lost[index] - lost[index - 1])
            return sparsities[index - 1] + share * (sparsities[index] - sparsities[index - 1])
    return sparsities[-1]


def scored(runtime: NodeRuntime, fleet: Fleet, criterion: str, question: Question, seed: int) -> np.ndarray:
    """Importance of all units by ``criterion``, float32 [units]: the mean over devices that take steps of length 0."""
    pruning = runtime.task.pruning.model_copy(update={"importance": criterion})
    task = runtime.task.model_copy(update={"pruning": pruning})
    context = DeviceContext(runtime.base, runtime.blueprint, task)
    chosen = _chosen(runtime, question, seed)
    rank = max(len(f.a) for f in fleet.adapter.factors.values()) if fleet.adapter.factors else 1
    sent = narrow(fleet.adapter, fleet.blueprint.dense(), fleet.structure)
    total = np.zeros(fleet.blueprint.units, np.float64)
    for device in chosen:
        assignment = Assignment(
            device=device,
            round=1,
            rank=rank,
            sparsity=fleet.structure.sparsity,
            local_steps=question.steps,
            learning_rate=0.0,
            learning_rate_end=0.0,
            seed=derive(seed, "knee", device),
            evaluate=False,
            structure=fleet.structure,
            score=True,
        )
        work = DeviceWork(assignment, sent, np.zeros(fleet.blueprint.units, np.float32), runtime.data(assignment))
        total += train_device(context, work).scores
    return (total / len(chosen)).astype(np.float32)


def _chosen(runtime: NodeRuntime, question: Question, seed: int) -> list[int]:
    """A seeded sample of the devices with text, ascending."""
    with_text = [device for device, rows in sorted(runtime.parts.items()) if len(rows)]
    draw = np.random.default_rng(derive(seed, "knee"))
    return sorted(draw.permutation(with_text)[: question.devices].tolist())


def _measured(runtime: NodeRuntime, fleet: Fleet, allocation: str, question: Question, seed: int) -> np.ndarray | None:
    """What ``allocation`` measures on the text of the devices that score, float64 [1 + blocks]; None if nothing."""
    if not ALLOCATIONS[allocation].measures:
        return None
    task = runtime.task.model_copy(
        update={"pruning": runtime.task.pruning.model_copy(update={"allocation": allocation})}
    )
    context, size = DeviceContext(runtime.base, runtime.blueprint, task), task.training.batch_size
    sent = narrow(fleet.adapter, fleet.blueprint.dense(), fleet.structure)
    total = np.zeros(1 + len(fleet.blueprint.blocks))
    for device in _chosen(runtime, question, seed):
        own = derive(seed, "knee", device)
        text = calibration_batches(runtime.train, runtime.parts[device], task.calibration.tokens, size, own)
        total += measured_on(context, sent, fleet.structure, text, own)
    return total


def _plain(task: TaskSpec) -> TaskSpec:
    """The task without what only training has: teacher, proximal term, generation."""
    training = {"recovery": "plain", "kl": 0.0, "teacher": "base", "proximal": 0.0, "checkpointing": False}
    generate = task.generate.model_copy(update={"examples": 0})
    training_spec = task.training.model_copy(update=training)
    return task.model_copy(update={"training": training_spec, "generate": generate})


def _quality(found: Evaluation, measure: str) -> float:
    return float(getattr(found, measure))


def _check(job: Job, question: Question, run_id: str) -> None:
    for criterion in question.criteria:
        IMPORTANCE[criterion]  # names the valid ones
    for allocation in question.allocations:
        ALLOCATIONS[allocation]
    if ADAPTERS[job.method.adapter].cuts_width:
        raise InputError(
            f'run {run_id} has method.adapter = "{job.method.adapter}", which cuts the width and no heads or channels; '
            "ask of a run with another adapter"
        )
