"""The choice of engine, cohort size, precision and workers for "auto", made once and kept with the run.

Cohorts and precision determine the last bits of a result. So the choice is made before the run is created, is written
to its job file, and is the same for all workers and every resume.
"""

from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.adapters.targets import targeted
from slimfed.clients.errors import InputError
from slimfed.clients.models.cost import training_workload
from slimfed.clients.models.dimensions import measure
from slimfed.clients.models.loading import LoadedModel
from slimfed.clients.processors import processor_count
from slimfed.clients.spec import TaskSpec
from slimfed.clients.structure import Blueprint
from slimfed.clients.training.calibration import StepCost, has_bf16, matrix_rate, step_cost
from slimfed.clients.training.engine import hindrance
from slimfed.platform.job.job import Job
from slimfed.platform.launch.workers import Sizing, gpu_count, size_up
from slimfed.strategies.first_adapter import first_adapter

# Least factor by which bf16 must be faster than fp32 to be chosen.
_WORTH = 1.3
# Possible sizes of a cohort: few, so that measurement noise seldom changes the choice.
_SIZES = (1, 2, 5, 10, 20, 40, 80)
# Of sizes that cost about the same the largest is taken, for the same reason.
_ABOUT = 1.1
# Above this the fixed cost of a step is negligible, and measuring takes too long.
_LONG_SECONDS = 0.5
# Cohorts that a processor should at least have of a round, so that none waits for the others. It counts processors, not
# workers: who shares a cohort, and so the last bits of a result, must not depend on the number of workers.
_COHORTS_A_PROCESSOR = 2
_GPU_COHORT = 80
# Memory of a worker beside model and activations: Python, PyTorch, Ray, tokenised text.
_WORKER_BYTES = 900e6
_MEMORY_SHARE = 0.7
# Factor for temporary memory of operations, which counted activations leave out.
_ACTIVATION_SLACK = 2.0


@dataclass(frozen=True)
class Choice:
    """The job without "auto" in ``engine``, its distribution on this machine, and the reason of each choice.

    ``step``: the cost of a training step, if it was measured for the choice.
    """

    job: Job
    sizing: Sizing
    reasons: tuple[str, ...]
    step: StepCost | None = None


@dataclass(frozen=True)
class _Picked:
    """A value and the reason of its choice; ``step``: what was measured for it."""

    value: Any
    reason: str
    step: StepCost | None = None


def choose(job: Job, base: LoadedModel, blueprint: Blueprint) -> Choice:
    """Resolve "auto" in ``engine``, by a short measurement and the free memory.

    ``base`` is the model as it was loaded, on the CPU. Raises ``InputError`` if the job's engine cannot train its task.
    """
    task, gpus = job.task_spec(), gpu_count()
    dtype = _dtype(job, gpus)
    job = _with(job, dtype=dtype.value)
    name = _name(job, task, base)
    job = _with(job, name=name.value)
    size = _cohort_size(job, base, blueprint, gpus)
    job = _with(job, cohort_size=size.value)
    workers = _workers(job, base, blueprint, gpus)
    sizing = size_up(
        job.fleet.participants, job.task_spec().cohort_size, workers.value, processors=processor_count(), gpus=gpus
    )
    sizing = replace(sizing, cluster=job.engine.cluster)
    job = _with(job, workers=sizing.workers)
    picked = {"dtype": dtype, "name": name, "cohort_size": size, "workers": workers}
    reasons = tuple(f"engine.{field} = {getattr(job.engine, field)}: {p.reason}" for field, p in picked.items())
    return Choice(job, sizing, reasons, size.step)


def _dtype(job: Job, gpus: int) -> _Picked:
    if job.engine.dtype != "auto":
        return _Picked(job.engine.dtype, "asked for")
    if gpus:
        able = torch.cuda.is_bf16_supported(including_emulation=False)
        return _Picked("bf16" if able else "fp32", f"the GPU {'multiplies' if able else 'does not multiply'} bf16")
    if not has_bf16():
        return _Picked("fp32", "this processor does not multiply bf16")
    full, half = (matrix_rate(dtype, torch.device("cpu")) for dtype in (torch.float32, torch.bfloat16))
    found = f"one core does {full / 1e9:.0f} GFLOP/s in fp32 and {half / 1e9:.0f} in bf16"
    return _Picked("bf16" if half > _WORTH * full else "fp32", found)


def _name(job: Job, task: TaskSpec, base: LoadedModel) -> _Picked:
    obstacle = hindrance(task, base)
    if job.engine.name == "cohort" and obstacle:
        raise InputError(f"engine.name = cohort: {obstacle}; use sequential or auto")
    if job.engine.name != "auto":
        return _Picked(job.engine.name, "asked for")
    if obstacle:
        return _Picked("sequential", obstacle)
    return _Picked("cohort", "devices share one pass over the base, cut to what any of them still has")


def _cohort_size(job: Job, base: LoadedModel, blueprint: Blueprint, gpus: int) -> _Picked:
    if job.engine.cohort_size != "auto":
        return _Picked(job.engine.cohort_size, "asked for")
    if job.engine.name == "sequential":
        return _Picked(1, "one device after another")
    fitting, memory = _fitting(job, base, blueprint, gpus)
    if gpus:
        return _Picked(min(fitting, _GPU_COHORT, job.fleet.participants), f"a cohort fills the card; {memory}")
    cost, measured = _cost(job, base, blueprint)
    cohorts = _COHORTS_A_PROCESSOR * processor_count()
    most = max(1, min(fitting, job.fleet.participants // cohorts))
    seconds = {size: seconds_a_device(cost, job, size) for size in _SIZES if size <= most}
    best = max(size for size, each in seconds.items() if each <= _ABOUT * min(seconds.values()))
    return _Picked(best, f"{measured}; at most {most} ({memory}; at least {cohorts} cohorts)", cost)


def measured_step(job: Job, base: LoadedModel, blueprint: Blueprint) -> StepCost | None:
    """The cost of a training step on one core; None if a GPU computes, whose steps are not measured."""
    return None if gpu_count() else _cost(job, base, blueprint)[0]


def _cost(job: Job, base: LoadedModel, blueprint: Blueprint) -> tuple[StepCost, str]:
    """The cost of a step (measured, or estimated if measuring takes long), and its origin in words."""
    task, training = job.task_spec(), job.training
    size = measure(base.model, blueprint, blueprint.dense(), targeted(blueprint, job.adapter.targets))
    load = ADAPTERS[job.method.adapter].load(size, min(job.bandit.ranks), _first_adapter(base, blueprint, job))
    flops = training_workload(size, load, 1, training.batch_size, job.data.max_length).flops
    counted = flops / matrix_rate(torch.float32, torch.device("cpu"))
    if counted > _LONG_SECONDS:
        return StepCost(0.0, counted), f"a device's step takes about {counted:.1f} s, its launch does not count"
    cost = step_cost(base, blueprint, task)
    return cost, f"a device's step takes {cost.own * 1e3:.1f} ms and {cost.fixed * 1e3:.1f} ms whatever its batch"


def seconds_a_device(cost: StepCost, job: Job, size: int) -> float:
    """Seconds of a device's step in a cohort of ``size``, over the run.

    A cohort shares the fixed part, but its base keeps every unit that any of its devices has. With s the mean sparsity
    and w the fleet's weight in a ranking (``pruning.prior_weight``), about s (w + (1 - w) s^(size - 1)) of the base is
    removed on all devices.
    """
    sparsity = job.method.target_sparsity * (1 - job.pruning.until / 2)
    alike = job.pruning.prior_weight
    gone = sparsity * (alike + (1 - alike) * sparsity ** (size - 1))
    return cost.fixed / size + cost.own * (1 - gone)


def _fitting(job: Job, base: LoadedModel, blueprint: Blueprint, gpus: int) -> tuple[int, str]:
    """Number of devices whose activations and adapters fit into a worker's memory beside the model."""
    model, device = _bytes(job, base, blueprint)
    if gpus:
        free = float(torch.cuda.mem_get_info()[0])
    else:
        free = _free() / max(1, min(processor_count(), int(_free() // (_WORKER_BYTES + model))))
        free -= _WORKER_BYTES
    fitting = max(1, int((_MEMORY_SHARE * free - model) // device))
    return fitting, f"{max(free, 0) / 2**30:.1f} GiB a worker hold about {fitting}"


def _workers(job: Job, base: LoadedModel, blueprint: Blueprint, gpus: int) -> _Picked:
    if job.engine.workers != "auto":
        return _Picked(job.engine.workers, "asked for")
    if gpus:
        return _Picked("auto", "one a GPU")
    model, device = _bytes(job, base, blueprint)
    each = _WORKER_BYTES + model + device * job.task_spec().cohort_size
    fitting = max(1, int(_free() // each))
    found = f"{processor_count()} cores; {_free() / 2**30:.1f} GiB free hold about {fitting} of {each / 2**30:.1f} GiB"
    return _Picked(min(processor_count(), fitting), found)


def _bytes(job: Job, base: LoadedModel, blueprint: Blueprint) -> tuple[float, float]:
    """Bytes of the model, and of one device in a cohort."""
    size = measure(base.model, blueprint, blueprint.dense(), targeted(blueprint, job.adapter.targets))
    rank, batch, length = max(job.bandit.ranks), job.training.batch_size, job.data.max_length
    load = ADAPTERS[job.method.adapter].load(size, rank, _first_adapter(base, blueprint, job))
    full, none = (
        training_workload(size, load, 1, rows, length, job.training.checkpointing).peak_memory_bytes
        for rows in (batch, 0)
    )
    trained = 16 * (load.trained + size.head_weights) + size.bytes_per_weight * load.weights
    return float(size.held_bytes), _ACTIVATION_SLACK * (full - none) + trained


def _free() -> float:
    return float(psutil.virtual_memory().available)


def _with(job: Job, **engine: object) -> Job:
    return job.model_copy(update={"engine": job.engine.model_copy(update=engine)})


def _first_adapter(base: LoadedModel, blueprint: Blueprint, job: Job) -> Adapter:
    return first_adapter(base, blueprint, job.method.adapter, max(job.bandit.ranks), job.seed, job.adapter.targets)
