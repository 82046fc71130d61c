"""Training of a node's devices: in cohorts over the shared base, or one after another on sliced models."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.models.loading import LoadedModel
from slimfed.clients.spec import TaskSpec
from slimfed.clients.training.cohort.model import supports
from slimfed.clients.training.cohort.trainer import train_cohort
from slimfed.clients.training.out_of_memory import is_out_of_memory, make_room, with_room
from slimfed.clients.training.single_device import train_device
from slimfed.clients.training.work import CohortWork, DeviceContext
from slimfed.clients.update import Assignment, Failure, Update

_log = logging.getLogger(__name__)


def hindrance(task: TaskSpec, base: LoadedModel) -> str:
    """The cause why this task cannot be trained in cohorts; empty if it can."""
    if not supports(base.model, base.head):
        return "the task head is more than linear modules"
    if task.training.taught:
        return "training.recovery and training.kl run a teacher beside every device's model, a cohort has but one model"
    if task.training.checkpointing:
        return "training.checkpointing computes one device's layers again, not those of a cohort"
    method = ADAPTERS[task.adapter.name]
    if not method.trains_in_cohorts:
        return f"method.adapter = {task.adapter.name!r} has no layers for cohorts"
    if method.uses_dropout and task.adapter.dropout > 0:
        return "adapter.dropout draws from one random state, which devices of a cohort cannot share"
    return ""


def train(context: DeviceContext, work: CohortWork) -> list[Update | Failure]:
    """Train the devices of ``work``, in order. A failing device does not affect the others.

    A cohort that runs out of memory is halved until it fits, and so are those after it; one device that does not fit is
    a failure. A cohort that fails for another reason is halved until the failing device is alone.
    """
    results: list[Update | Failure] = []
    size = context.task.cohort_size if context.task.engine == "cohort" else 1
    with _flushing_denormals():
        while len(results) < len(work):
            start = len(results)
            done, size = _attempt(context, work[start : start + _equal(work.assignments[start : start + size])], size)
            results += done
    return results


def _equal(assignments: Sequence[Assignment]) -> int:
    """The first ``assignments`` in a row with equal local steps, which a cohort needs; their number."""
    return next(
        (n for n, each in enumerate(assignments) if each.local_steps != assignments[0].local_steps), len(assignments)
    )


def _one_pass(context: DeviceContext, work: CohortWork) -> list[Update]:
    """Train the devices of ``work`` at once, by the engine of the task."""
    if context.task.engine == "sequential":
        with context.watch.phase("steps"):
            return [train_device(context, each) for each in work]
    if len(work) == 1:
        return with_room(lambda: train_cohort(context, work))
    return train_cohort(context, work)


@contextmanager
def _flushing_denormals() -> Iterator[None]:
    """Flush denormal numbers to zero, in this thread alone.

    Gradients of well-learnt texts fall below 1e-38, where a processor is many times slower.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _attempt(context: DeviceContext, work: CohortWork, size: int) -> tuple[list[Update | Failure], int]:
    """Results of the devices of ``work``, and the size of the cohorts after it."""
    meter, before = context.meter, context.meter.trained
    try:
        updates: list[Update | Failure] = list(_one_pass(context, work))
        meter.trained = before + len(work)  # fractions of steps do not add up exactly
        return updates, size
    except Exception as error:
        cause, starved = _in_words(error), is_out_of_memory(error)
        if len(work) == 1:
            device = work.assignments[0].device
            _log.warning("device %d failed: %s", device, cause, exc_info=not starved)
            meter.trained = before + 1
            return [Failure(device, cause)], size
    meter.trained = before
    make_room()  # out of memory in a kernel can appear as another error
    half = (len(work) + 1) // 2
    _log.warning("a cohort of %d devices failed, two halves are tried: %s", len(work), cause)
    size = min(size, half) if starved else size
    first, size = _attempt(context, work[:half], size)
    second, size = _attempt(context, work[half:], size)
    return first + second, size


def _in_words(error: Exception) -> str:
    text = (str(error).strip() or "no reason given").splitlines()[0]
    return f"out of memory on the node: {text}" if is_out_of_memory(error) else f"{type(error).__name__}: {text}"
