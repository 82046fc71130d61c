"""How a node's devices are computed: in cohorts over the shared base, or one after another on sliced models."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.models.loading import LoadedModel
from slimfed.clients.spec import TaskSpec
from slimfed.clients.stopwatch import Stopwatch
from slimfed.clients.structure import Blueprint
from slimfed.clients.training.cohort.model import supports
from slimfed.clients.training.cohort.trainer import train_cohort
from slimfed.clients.training.out_of_memory import is_out_of_memory, make_room, with_room
from slimfed.clients.training.single_device import DeviceData, train_device
from slimfed.clients.update import Assignment, Failure, Update

_log = logging.getLogger(__name__)

_Train = Callable[[slice], list[Update]]


def hindrance(task: TaskSpec, base: LoadedModel) -> str:
    """Why this task cannot be trained in cohorts; empty if it can."""
    if not supports(base.model, base.head):
        return "the task head is more than linear modules"
    if task.training.recovery == "squarehead":
        return "training.recovery = squarehead runs the unpruned base beside every device's model, a cohort has but one"
    if task.training.checkpointing:
        return "training.checkpointing computes one device's layers again, not those of a cohort"
    method = ADAPTERS[task.adapter.name]
    if not method.trains_in_cohorts:
        return f"method.adapter = {task.adapter.name!r} has no layers for cohorts"
    if method.uses_dropout and task.adapter.dropout > 0:
        return "adapter.dropout draws from one random state, which devices of a cohort cannot share"
    return ""


def train(
    base: LoadedModel,
    blueprint: Blueprint,
    task: TaskSpec,
    assignments: Sequence[Assignment],
    adapters: Sequence[Adapter],
    fleet_scores: np.ndarray,
    data: Sequence[DeviceData],
    watch: Stopwatch | None = None,
) -> list[Update | Failure]:
    """Train the assigned devices, in order. A device that fails on its own does not harm the others.

    A cohort that runs out of memory is halved until it fits, and so are those after it; one device that does not fit
    is a failure. A cohort that fails in another way is halved too, until what fails is alone.
    """
    clock = watch or Stopwatch()

    def cohort(part: slice) -> list[Update]:
        def work() -> list[Update]:
            return train_cohort(
                base, blueprint, task, assignments[part], adapters[part], fleet_scores, data[part], clock
            )

        return with_room(work) if part.stop - part.start == 1 else work()

    def alone(part: slice) -> list[Update]:
        only = part.start
        with clock.phase("steps"):
            return [train_device(base, blueprint, task, assignments[only], adapters[only], fleet_scores, data[only])]

    results: list[Update | Failure] = []
    size = task.cohort_size if task.engine == "cohort" else 1
    with _flushing_denormals():
        while len(results) < len(assignments):
            part = slice(len(results), min(len(results) + size, len(assignments)))
            done, size = _attempt(cohort if task.engine == "cohort" else alone, part, size, assignments)
            results += done
    return results


@contextmanager
def _flushing_denormals() -> Iterator[None]:
    """Take numbers below the smallest normal one for zero, in this thread alone.

    Gradients of a text that is learnt well fall below 1e-38, where a processor is many times slower.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _attempt(
    train_part: _Train, part: slice, size: int, assignments: Sequence[Assignment]
) -> tuple[list[Update | Failure], int]:
    """Results of the devices ``part``, and the size of the cohorts after it."""
    try:
        return list(train_part(part)), size
    except Exception as error:
        cause, starved = _in_words(error), is_out_of_memory(error)
        if part.stop - part.start == 1:
            device = assignments[part.start].device
            _log.warning("device %d failed: %s", device, cause, exc_info=not starved)
            return [Failure(device, cause)], size
    make_room()  # kernels that find no memory do not always say so
    half = (part.stop - part.start + 1) // 2
    _log.warning("a cohort of %d devices failed, two halves are tried: %s", part.stop - part.start, cause)
    size = min(size, half) if starved else size
    first, size = _attempt(train_part, slice(part.start, part.start + half), size, assignments)
    second, size = _attempt(train_part, slice(part.start + half, part.stop), size, assignments)
    return first + second, size


def _in_words(error: Exception) -> str:
    text = (str(error).strip() or "no reason given").splitlines()[0]
    return f"out of memory on the node: {text}" if is_out_of_memory(error) else f"{type(error).__name__}: {text}"
