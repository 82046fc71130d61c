"""How a node's devices are computed: in cohorts over the shared base, or one after another on sliced models."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.cohort.model import supports
from slimfed.clients.cohort.trainer import train_cohort
from slimfed.clients.messages import Failure
from slimfed.clients.models import LoadedModel
from slimfed.clients.spec import TaskSpec
from slimfed.clients.structure import Blueprint
from slimfed.clients.trainer import DeviceData, train_device
from slimfed.clients.update import Adapter, Assignment, Update

_log = logging.getLogger("slimfed.engine")

# A cohort computes the dense model, masked. On a CPU that pays while the cost of a step is its many small operations;
# with more prunable weights than this, a device's own sliced model is less work (measured: benchmarks/README.md).
_CPU_COHORT_WEIGHTS = 4_000_000


@dataclass(frozen=True)
class Engine:
    """What was chosen, and why."""

    name: Literal["cohort", "sequential"]
    cohort_size: int
    reason: str


def choose_engine(task: TaskSpec, base: LoadedModel, blueprint: Blueprint) -> Engine:
    """The engine for a task on this processor. Raises ``ValueError`` if the task asks for one that cannot do it."""
    hindrance = _hindrance(task, base)
    size = task.cohort_size
    if task.engine == "sequential":
        return Engine("sequential", 1, "asked for by engine.name")
    if task.engine == "cohort":
        if hindrance:
            raise ValueError(f"engine.name = cohort: {hindrance}; use sequential or auto")
        return Engine("cohort", size, "asked for by engine.name")
    if hindrance:
        return Engine("sequential", 1, hindrance)
    weights = int(blueprint.parameters.sum())
    if base.model.device.type != "cuda" and weights > _CPU_COHORT_WEIGHTS:
        return Engine("sequential", 1, f"on a CPU, slicing {weights / 1e6:.1f} M prunable weights saves more")
    return Engine("cohort", size, f"{weights / 1e6:.1f} M prunable weights on {base.model.device.type}")


def train(
    engine: Engine,
    base: LoadedModel,
    blueprint: Blueprint,
    task: TaskSpec,
    assignments: Sequence[Assignment],
    adapters: Sequence[Adapter],
    fleet_scores: np.ndarray,
    data: Sequence[DeviceData],
) -> list[Update | Failure]:
    """Train the assigned devices, in order. A device that fails on its own does not harm the others.

    A cohort that runs out of memory is halved until it fits; one device that does not fit is a failure.
    """
    results: list[Update | Failure] = []
    size = engine.cohort_size
    while len(results) < len(assignments):
        part = slice(len(results), len(results) + size)
        try:
            if engine.name == "cohort":
                results += train_cohort(
                    base, blueprint, task, assignments[part], adapters[part], fleet_scores, data[part]
                )
            else:
                only = len(results)
                results.append(
                    train_device(base, blueprint, task, assignments[only], adapters[only], fleet_scores, data[only])
                )
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            if size == 1:
                results.append(Failure(assignments[len(results)].device, f"out of memory on the node: {error}"))
            else:
                size //= 2
                _log.warning("out of memory: cohorts of %d devices from here on", size)
    return results


def _hindrance(task: TaskSpec, base: LoadedModel) -> str:
    """Why this task cannot be trained in cohorts; empty if it can."""
    hindrance = ADAPTERS[task.adapter.name].hindrance(task.adapter)
    if hindrance:
        return hindrance
    if not supports(base.model, base.head):
        return "the task head is more than linear modules"
    return ""
