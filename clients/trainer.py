"""One device's round: tune, score, prune, recover, and report what changed."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from slimfed.clients.adapters.lora import AdaptedModel, attach
from slimfed.clients.cost import measure, training_workload
from slimfed.clients.importance import IMPORTANCE, Importance, SmoothedScores
from slimfed.clients.memory import peak_memory
from slimfed.clients.models import LoadedModel
from slimfed.clients.selection import select
from slimfed.clients.slicing import narrow, slice_model
from slimfed.clients.spec import TaskSpec
from slimfed.clients.structure import Blueprint, Structure
from slimfed.clients.update import Adapter, Assignment, Evaluation, Update, Workload

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class DeviceData:
    """A device's own data: an endless stream of training batches, fixed batches to measure on, and their number."""

    batches: Iterator[Batch]
    probe: tuple[Batch, ...]
    examples: int


def train_device(
    base: LoadedModel,
    blueprint: Blueprint,
    task: TaskSpec,
    assignment: Assignment,
    adapter: Adapter,
    fleet_scores: np.ndarray,
    data: DeviceData,
    evaluate: Callable[[AdaptedModel], Evaluation],
) -> Update:
    """Train one device for one round.

    ``adapter`` has the device's shape (its structure and rank) and ``fleet_scores`` is float32 [units]. The round
    is cut into ``pruning.events`` + 1 stretches of steps; after every stretch but the last, units go until the device is as
    sparse as that share of the assignment asks, and the next stretch recovers (FedSpine's prune and recover).
    """
    started = time.perf_counter()
    session = _Session(base, blueprint, task, assignment, fleet_scores)
    with peak_memory(base.model.device) as memory:
        session.build(assignment.structure, adapter)
        loss_before = session.mean_loss(data.probe)
        for stretch, steps in enumerate(_stretches(assignment.local_steps, session.events)):
            if stretch:
                session.prune(stretch / session.events)
            session.train(data.batches, steps)
        loss_after = session.mean_loss(data.probe)
    seconds = time.perf_counter() - started
    return Update(
        device=assignment.device,
        round=assignment.round,
        rank=assignment.rank,
        structure=session.structure,
        adapter=session.adapted.read(),
        scores=session.scores.value(session.structure),
        loss_before=loss_before,
        loss_after=loss_after,
        importance=session.update_importance(),
        examples=data.examples,
        seconds=seconds,
        measured_memory_bytes=memory.peak,
        workload=session.workload,
        evaluation=evaluate(session.adapted) if assignment.evaluate else None,
    )


class _Session:
    """The moving parts of one device's round: model, optimiser, scores, and what it cost so far."""

    def __init__(
        self, base: LoadedModel, blueprint: Blueprint, task: TaskSpec, assignment: Assignment, fleet_scores: np.ndarray
    ) -> None:
        self.base = base
        self.blueprint = blueprint
        self.task = task
        self.assignment = assignment
        self.fleet_scores = fleet_scores
        self.device = base.model.device
        self.prunes = self._can_prune()
        self.events = task.pruning.events if self.prunes else 0
        self.scores = SmoothedScores(blueprint, task.pruning.smoothing, self.device)
        self.importance: Importance = IMPORTANCE[task.pruning.importance](blueprint, assignment.seed)
        self.workload = Workload(0.0, 0.0, 0.0)
        self._step = 0
        self._sensitivity = torch.zeros((), device=self.device)

    def _can_prune(self) -> bool:
        """False once the assigned sparsity is less than a unit away: then nothing needs to be scored."""
        start = self.assignment.structure
        return select(start, self.fleet_scores, self.assignment.sparsity, self.task.pruning.scope) is not start

    def build(self, structure: Structure, adapter: Adapter) -> None:
        """(Re)build the sliced model with its adapter; the optimiser starts afresh, its moments would not fit."""
        self.structure = structure
        self.adapted = attach(slice_model(self.base.model, structure), adapter, self.task.adapter)
        self.importance.watch(self.adapted, structure)
        self.optimizer = torch.optim.AdamW(
            self.adapted.parameters(),
            lr=self.assignment.learning_rate,
            weight_decay=self.task.training.weight_decay,
        )

    def prune(self, share: float) -> None:
        """Remove units until ``share`` of the way from the assigned structure to the assigned sparsity is gone."""
        start, goal = self.assignment.structure.sparsity, self.assignment.sparsity
        # The same fraction of what remains at every event: 1 - (1 - p)^(1/n), algorithms section 1.
        sparsity = goal if share >= 1 else 1 - (1 - start) * ((1 - goal) / (1 - start)) ** share
        ranking = mix_scores(
            self.blueprint, self.scores.value(self.structure), self.fleet_scores, self.task.pruning.prior_weight
        )
        structure = select(self.structure, ranking, sparsity, self.task.pruning.scope)
        if structure != self.structure:
            self.build(structure, narrow(self.adapted.read(), self.structure, structure))

    def train(self, batches: Iterator[Batch], steps: int) -> None:
        """``steps`` optimiser steps, each scored while the device still has something to prune."""
        self.adapted.model.train()
        tokens = 0
        largest = (0, 0)
        for _ in range(steps):
            batch = self._move(next(batches))
            self._set_learning_rate()
            loss = self._loss(batch)
            loss.backward()
            if self.prunes:
                self.scores.add(self.importance.kept, self.importance.score())
            torch.nn.utils.clip_grad_norm_(self.adapted.parameters(), self.task.training.max_grad_norm)
            self._measure_sensitivity()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self._step += 1
            tokens += batch["input_ids"].numel()
            rows, length = batch["input_ids"].shape
            largest = max(largest, (rows, length), key=lambda shape: shape[0] * shape[1])
        self._count(steps, tokens, largest)

    def mean_loss(self, batches: tuple[Batch, ...]) -> float:
        """Mean loss on fixed batches, without dropout."""
        self.adapted.model.eval()
        with torch.no_grad():
            return float(torch.stack([self._loss(self._move(batch)) for batch in batches]).double().mean())

    def update_importance(self) -> float:
        """Mean over the steps of sum |A * gA| + |B * gB|: how much the loss leans on the adapter."""
        return float(self._sensitivity) / max(self._step, 1)

    def _loss(self, batch: Batch) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.task.dtype == "bf16"):
            return (
                self.adapted.model(**batch, use_cache=False).loss
                if self._is_decoder
                else self.adapted.model(**batch).loss
            )

    @property
    def _is_decoder(self) -> bool:
        return self.task.model.task == "causal-lm"

    def _move(self, batch: Batch) -> Batch:
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}

    def _set_learning_rate(self) -> None:
        begin, end = self.assignment.learning_rate, self.assignment.learning_rate_end
        rate = begin + (end - begin) * self._step / self.assignment.local_steps
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _measure_sensitivity(self) -> None:
        with torch.no_grad():
            products = [
                (p * p.grad).abs().sum()
                for layer in self.adapted.layers.values()
                for p in (layer.a, layer.b)
                if p.grad is not None
            ]
            self._sensitivity += torch.stack(products).sum()

    def _count(self, steps: int, tokens: int, largest: tuple[int, int]) -> None:
        size = measure(self.base.model, self.blueprint, self.structure)
        part = training_workload(size, self.assignment.rank, steps, tokens, *largest)
        self.workload = Workload(
            self.workload.flops + part.flops,
            self.workload.traffic_bytes + part.traffic_bytes,
            max(self.workload.peak_memory_bytes, part.peak_memory_bytes),
        )


def mix_scores(blueprint: Blueprint, own: np.ndarray, fleet: np.ndarray, weight: float) -> np.ndarray:
    """A device's ranking: its own scores and the fleet's, each scaled to sum 1 within a block, mixed by ``weight``.

    Devices that lean on the same fleet scores keep like structures, which is what lets their updates add up. All
    vectors are float32 [units]; where the fleet has no scores yet, the device's own decide alone.
    """
    if weight == 0.0 or not fleet.any():
        return own
    return (1.0 - weight) * _scaled(blueprint, own) + weight * _scaled(blueprint, fleet)


def _scaled(blueprint: Blueprint, scores: np.ndarray) -> np.ndarray:
    scaled = scores.astype(np.float64)
    for index in range(len(blueprint.blocks)):
        span = blueprint.span(index)
        scaled[span] /= max(scaled[span].sum(), 1e-12)
    return scaled


def _stretches(steps: int, events: int) -> list[int]:
    """``steps`` cut into ``events`` + 1 stretches as equal as can be; the later ones, which recover, take the rest."""
    parts = events + 1
    return [(steps + i) // parts for i in range(parts)]
