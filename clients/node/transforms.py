"""Transforms of updates between training and sending, applied in a fixed order."""

import secrets
from collections.abc import Set
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters import AdapterMethod
from slimfed.clients.adapters.rank_pruning import self_pruned
from slimfed.clients.messages.quantization import compensated, kept
from slimfed.clients.messages.records import Orders
from slimfed.clients.node.evaluator import ModelEvaluator
from slimfed.clients.privacy import localised
from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.clients.spec import AdapterSpec, Precision, PrivacySpec
from slimfed.clients.update import Update


class UpdateTransform(Protocol):
    """One transform of updates before they are sent."""

    def __call__(self, updates: list[Update], orders: Orders) -> list[Update]:
        """The changed ``updates`` that answer ``orders``: of the same devices, in the same order."""
        ...


@dataclass(frozen=True)
class PruneRanks:
    """Prunes ranks that have shrunk (HetLoRA, Cho et al., arXiv 2401.06432, section 3.3)."""

    spec: AdapterSpec

    def __call__(self, updates: list[Update], orders: Orders) -> list[Update]:
        """Each update, with fewer ranks or unchanged."""
        return [self_pruned(update, sent_to(update, orders), self.spec) for update in updates]


@dataclass(frozen=True)
class EvaluateModels:
    """Evaluates the requested devices' models on ``rows`` of the test split, in cohorts if possible.

    A real device may have no test file; without rows nothing is evaluated.
    """

    evaluator: ModelEvaluator
    rows: np.ndarray

    def __call__(self, updates: list[Update], orders: Orders) -> list[Update]:
        """Each update, with an evaluation in its report if its assignment requests one."""
        with self.evaluator.context.watch.phase("evaluate"):
            if not len(self.rows):
                return updates
            asked = {assignment.device for assignment in orders.assignments if assignment.evaluate}
            return self.evaluated(updates, asked)

    def evaluated(self, updates: list[Update], devices: Set[int]) -> list[Update]:
        """Each update, with an evaluation in its report if it is of one of ``devices``."""
        own = [update for update in updates if update.device in devices]
        self.evaluator.context.meter.expect(len(own) * len(self.rows))
        found = dict(zip((update.device for update in own), self.evaluator.many(own, self.rows), strict=True))
        return [update.with_report(evaluation=found.get(update.device)) for update in updates]


@dataclass(frozen=True)
class Privatise:
    """Local differential privacy: clips the adapter, adds noise, and removes other values that depend on the text.

    The noise comes from the system's entropy and not from the run's seed, which others know.
    """

    spec: PrivacySpec

    def __call__(self, updates: list[Update], orders: Orders) -> list[Update]:
        """Each update in its private form."""
        private = []
        for update in updates:
            draw = np.random.default_rng(secrets.randbits(256))
            private.append(localised(update, sent_to(update, orders), self.spec, draw))
        return private


@dataclass(frozen=True)
class Upload:
    """Leaves out the parts of an adapter of ``method`` that the server already knows."""

    method: AdapterMethod

    def __call__(self, updates: list[Update], orders: Orders) -> list[Update]:
        """Each update with the part of its adapter that is sent."""
        return [replace(update, adapter=self.method.upload(update.adapter)) for update in updates]


@dataclass(frozen=True)
class Quantise:
    """Rounds adapters to ``precision`` after adding the rounding error of the device's last round (error feedback)."""

    precision: Precision

    def __call__(self, updates: list[Update], orders: Orders) -> list[Update]:
        """Each rounded update, with the new rounding error as the ``memory`` of its report."""
        starts = {assignment.device: assignment.structure for assignment in orders.assignments}
        rounded = []
        for update in updates:
            report, memory = update.report, orders.memories.get(update.device)
            if memory is not None:
                memory = kept(memory, starts[update.device], report.structure, report.rank)
            adapter, memory = compensated(update.adapter, memory, self.precision)
            rounded.append(replace(update.with_report(memory=memory), adapter=adapter))
        return rounded


def sent_to(update: Update, orders: Orders) -> Adapter:
    """The adapter that the device was sent, in its current structure and rank."""
    return narrow(orders.adapter, orders.envelope, update.report.structure, update.report.rank)
