"""Short measurements of this processor, for choosing the engine and for comparison with a profile."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
import torch

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters.training.lora import zero_factors
from slimfed.clients.models.linear import shape_of
from slimfed.clients.models.loading import LoadedModel
from slimfed.clients.models.tensors import to_array
from slimfed.clients.processors import compute_threads
from slimfed.clients.spec import AdapterSpec, TaskSpec
from slimfed.clients.structure import Blueprint
from slimfed.clients.training.single_device import train_device
from slimfed.clients.training.work import DeviceContext, DeviceData, DeviceWork
from slimfed.clients.update import Assignment

_FEWEST, _REPEATS = 3, 5
_ENOUGH_SECONDS = 0.5
_STEPS = 2
_LARGER = 3
_RANK = 8


@dataclass(frozen=True)
class StepCost:
    """Seconds of one device's training step: ``fixed`` for any batch, plus ``own`` for a batch of the job's size."""

    fixed: float
    own: float


def matrix_rate(dtype: torch.dtype, device: torch.device, rows: int = 1024, width: int = 1024) -> float:
    """FLOP/s of a large matrix product in ``dtype``, the reachable peak. One thread on a CPU."""
    x, w = (torch.ones(rows, width, dtype=dtype, device=device) for _ in range(2))
    if device.type == "cuda":
        x, w = (torch.ones(8192, 8192, dtype=dtype, device=device) for _ in range(2))
    with compute_threads(1):
        seconds = _least_seconds(lambda: x @ w.T, device)
    return 2.0 * x.shape[0] * x.shape[1] * w.shape[0] / seconds


def has_bf16() -> bool:
    """True if this CPU multiplies bf16 in hardware. Otherwise bf16 is emulated and slow."""
    information = Path("/proc/cpuinfo")
    flags = information.read_text(encoding="utf-8", errors="replace") if information.exists() else ""
    return any(f" {flag}" in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))


def step_cost(base: LoadedModel, blueprint: Blueprint, task: TaskSpec) -> StepCost:
    """Measure the step of one device, on artificial text of the job's longest length.

    Processor seconds of one thread. The fixed part follows from steps on one text and on three batches: a step on one
    text is mostly fixed, so that the little time that other programs still cost does not hide it.
    """
    rows = task.training.batch_size
    with compute_threads(1):
        small, large = (_step_seconds(base, blueprint, task, count) for count in (1, _LARGER * rows))
    each = max(0.0, (large - small) / (_LARGER * rows - 1))
    return StepCost(max(0.0, small - each), each * rows)


def _step_seconds(base: LoadedModel, blueprint: Blueprint, task: TaskSpec, rows: int) -> float:
    """Seconds of a step on ``rows`` texts, without a teacher's: a round of several steps less a round of one."""
    length = task.data.max_length
    ids = torch.full((rows, length), base.pad_id, dtype=torch.int64)
    labels = torch.zeros(rows, dtype=torch.int64) if task.model.task == "classification" else torch.zeros_like(ids)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    probe = ({name: tensor[:1, :1] if tensor.dim() == 2 else tensor[:1] for name, tensor in batch.items()},)
    data = DeviceData(lambda: repeat(batch), probe, rows)
    adapter = blank_adapter(base, blueprint)
    scores = np.zeros(blueprint.units, dtype=np.float32)

    training = task.training.model_copy(update={"recovery": "plain", "kl": 0.0, "teacher": "base"})
    task = task.model_copy(update={"adapter": AdapterSpec(), "training": training})

    def round_of(steps: int) -> Callable[[], object]:
        part = Assignment(0, 1, _rank(base, blueprint), 0.0, steps, 0.0, 0.0, 0, False, blueprint.dense())
        return lambda: train_device(DeviceContext(base, blueprint, task), DeviceWork(part, adapter, scores, data))

    round_of(1)()  # the first pass of a shape includes set-up
    many, one = (_least_seconds(round_of(steps), base.model.device) for steps in (_STEPS + 1, 1))
    return max(0.0, many - one) / _STEPS


def blank_adapter(base: LoadedModel, blueprint: Blueprint) -> Adapter:
    """A LoRA adapter with product 0."""
    factors = zero_factors(base.model, blueprint.modules, _rank(base, blueprint))
    return Adapter(factors, {name: to_array(base.model.get_parameter(name)) for name in base.head})


def _rank(base: LoadedModel, blueprint: Blueprint) -> int:
    return min(_RANK, *(min(shape_of(base.model.get_submodule(name))) for name in blueprint.modules))


def _least_seconds(work: Callable[[], object], device: torch.device) -> float:
    """The shortest of a few runs (fewer if they take long), since set-up and other programs can only slow a run.

    Never of one: the first may take several times as long as the rest.
    """
    times: list[float] = []
    while len(times) < _FEWEST or (len(times) < _REPEATS and sum(times) < _ENOUGH_SECONDS):
        times.append(_seconds(work, device))
    return min(times)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Processor seconds on a CPU, wall seconds on an accelerator."""
    if device.type == "cpu":
        started = time.process_time()
        work()
        return time.process_time() - started
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    torch.cuda.synchronize(device)
    return time.perf_counter() - started
