"""Measuring on text what the layers' shares of a shared structure depend on (``pruning.allocation``)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.adapters.targets import targeted
from slimfed.clients.allocation import ALLOCATIONS, Probe
from slimfed.clients.data.batching import Batch, TokenisedSplit
from slimfed.clients.messages.records import Orders
from slimfed.clients.models.cost import loss_workload
from slimfed.clients.models.dimensions import measure
from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.clients.seeds import derive
from slimfed.clients.structure import Structure
from slimfed.clients.training.out_of_memory import with_room
from slimfed.clients.training.work import DeviceContext, counted_shape
from slimfed.clients.update import Assignment, Update, Workload


@dataclass(frozen=True)
class MeasureShares:
    """Adds to the updates of devices that are asked for it what the allocation measures on ``train``, their text.

    The model is the one that the device was sent, before training, so that devices of one structure measure one model,
    and the sum of what they find is that over all of their text. ``parts``: the training rows of each device.
    """

    context: DeviceContext
    train: TokenisedSplit
    parts: Mapping[int, np.ndarray]

    def __call__(self, updates: list[Update], orders: Orders) -> list[Update]:
        """Each update, with what it measured if its assignment asks for it, which counts as its work."""
        asked = {each.device: each for each in orders.assignments if each.calibrate}
        return [self._measured(each, asked[each.device], orders) if each.device in asked else each for each in updates]

    def _measured(self, update: Update, assignment: Assignment, orders: Orders) -> Update:
        task = self.context.task
        sent = narrow(orders.adapter, orders.envelope, assignment.structure, assignment.rank)
        seed = derive(task.seed, "calibration", assignment.device)
        text = calibration_batches(
            self.train, self.parts[assignment.device], assignment.calibrate, task.training.batch_size, seed
        )
        with self.context.watch.phase("importance"):
            found = measured_on(self.context, sent, assignment.structure, text, seed)
        workload = update.report.workload + self._work(assignment, sent, text)
        return replace(update.with_report(workload=workload), measured=found)

    def _work(self, assignment: Assignment, sent: Adapter, text: Sequence[Batch]) -> Workload:
        """The work of all forward passes."""
        task, blueprint = self.context.task, self.context.blueprint
        targets = targeted(blueprint, task.adapter.targets)
        size = measure(self.context.base.model, blueprint, assignment.structure, targets)
        load = ADAPTERS[task.adapter.name].load(size, assignment.rank, sent)
        passes = 1 + ALLOCATIONS[task.pruning.allocation].passes_per_block * len(blueprint.blocks)
        whole = Workload(0.0, 0.0, 0.0)
        for batch in text:
            one = loss_workload(size, load, *counted_shape(task, batch))
            whole = whole + Workload(passes * one.flops, passes * one.traffic_bytes, one.peak_memory_bytes)
        return whole


def measured_on(
    context: DeviceContext, adapter: Adapter, structure: Structure, text: Sequence[Batch], seed: int
) -> np.ndarray:
    """What the allocation of the context's task measures on ``text``: float64 [1 + blocks].

    The model is the base, sliced to ``structure``, with ``adapter`` (in that shape) in it.
    """
    spec = context.task.adapter
    method = ADAPTERS[spec.name]
    dtype = torch.bfloat16 if context.task.dtype == "bf16" else torch.float32

    def found() -> np.ndarray:
        model = method.training.build(context.base.model, structure, method.finished(adapter), spec)
        probe = Probe(model, context.blueprint, text, dtype, seed)
        return ALLOCATIONS[context.task.pruning.allocation].measure(probe)

    return with_room(found)


def calibration_batches(
    split: TokenisedSplit, rows: np.ndarray, tokens: int, batch_size: int, seed: int
) -> tuple[Batch, ...]:
    """Texts of ``rows`` in an order drawn by ``seed``, of together at most ``tokens`` tokens, but at least one text.

    Texts of similar length share a batch, so that batches need little padding.
    """
    order = np.random.default_rng(seed).permutation(rows)
    fitting = max(1, int(np.searchsorted(np.cumsum(split.lengths[order]), tokens, side="right")))
    chosen = order[:fitting]
    chosen = chosen[np.argsort(split.lengths[chosen], kind="stable")]
    return tuple(split.collate(chosen[start : start + batch_size]) for start in range(0, len(chosen), batch_size))
