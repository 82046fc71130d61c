"""One device's round, alone on its physically sliced model: tune, score, prune, recover, report."""

import time
from collections.abc import Mapping
from contextlib import nullcontext

import numpy as np
import torch

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.adapters.targets import targeted
from slimfed.clients.adapters.training.adapted import AdaptedModel
from slimfed.clients.adapters.training.base import parameter_groups
from slimfed.clients.importance import IMPORTANCE
from slimfed.clients.importance.smoothing import SmoothedScores
from slimfed.clients.models.cost import inference_flops, loss_workload, training_workload
from slimfed.clients.models.dimensions import measure
from slimfed.clients.models.families import without_cache
from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.clients.pruning.events import can_prune, prune, prune_steps
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.clients.structure import Structure
from slimfed.clients.training.checkpointing import ActivationFunctions, recompute_layers
from slimfed.clients.training.distillation import divergence, square_head, taught
from slimfed.clients.training.losses import counted, device_losses
from slimfed.clients.training.memory import peak_memory
from slimfed.clients.training.work import Batch, DeviceContext, DeviceWork, counted_shape
from slimfed.clients.update import Report, Update, Workload


def train_device(context: DeviceContext, work: DeviceWork) -> Update:
    """Train one device for one round.

    The round alternates optimiser steps with prune events (FedSpine's prune and recover). The optimiser's moments are
    sliced with the factors.
    """
    started = time.perf_counter()
    assignment, data = work.assignment, work.data
    session = _Session(context, work)
    events = prune_steps(assignment.local_steps, context.task.pruning.events) if session.prunes else {}
    batches = data.batches()
    with peak_memory(context.base.model.device) as memory:
        session.build(assignment.structure, session.method.opened(work.adapter))
        session.hold_to(session.adapted.read())
        loss_before = session.mean_loss(data.probe)
        for step in range(assignment.local_steps):
            if step in events:
                session.prune(work.scores, events[step])
            session.step(next(batches), step)
            context.meter.train(1 / assignment.local_steps)
        loss_after = session.mean_loss(data.probe)
    learnt = session.method.closed(session.adapted.read(), assignment.rank)
    report = Report(
        device=assignment.device,
        round=assignment.round,
        rank=assignment.rank,
        effective_rank=learnt.effective_rank,
        structure=session.structure,
        loss_before=loss_before,
        loss_after=loss_after,
        importance=float(session.sensitivity) / assignment.local_steps,
        examples=data.examples,
        seconds=time.perf_counter() - started,
        measured_memory_bytes=memory.peak,
        workload=session.workload,
        evaluation=None,
    )
    return Update(report, learnt, np.where(session.structure.keep, session.scores.value(), np.float32(0.0)))


class _Session:
    """The state of one device's round: model, optimiser, scores, and cost so far."""

    def __init__(self, context: DeviceContext, work: DeviceWork) -> None:
        base, blueprint, task, assignment = context.base, context.blueprint, context.task, work.assignment
        self.base = base
        self.blueprint = blueprint
        self.task = task
        self.assignment = assignment
        self.sent = work.adapter
        self.method = ADAPTERS[task.adapter.name]
        self.device = base.model.device
        self.prunes = can_prune(assignment, task.pruning)
        self.scores = SmoothedScores(blueprint, task.pruning.smoothing, (), self.device)
        self.importance = IMPORTANCE[task.pruning.importance](blueprint, [assignment.seed])
        self.sensitivity = torch.zeros((), device=self.device)
        self.workload = Workload(0.0, 0.0, 0.0)
        self.teacher = context.teacher
        if task.training.taught and self.teacher is None:
            raise ValueError("training.recovery and training.kl need a teacher, which the context lacks")

    def build(self, structure: Structure, adapter: Adapter) -> None:
        """(Re)build the sliced model with its adapter and a fresh optimiser."""
        self.structure = structure
        targets = targeted(self.blueprint, self.task.adapter.targets)
        self.size = measure(self.base.model, self.blueprint, structure, targets)
        sliced = slice_model(self.base.model, structure)
        self.activations = ActivationFunctions(sliced)
        if self.task.training.checkpointing:
            recompute_layers(sliced)
        self.adapted = self.method.training.attach(sliced, structure, adapter, self.task)
        self.load = self.method.load(self.size, self.assignment.rank, self.sent)
        self.companion = self.method.training.companion(
            self.adapted, self.task, self.assignment.round, [self.assignment.rank]
        )
        self.importance.watch(self.adapted, [structure], structure)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.adapted, self.task.training.weight_decay, self.task.adapter.lora_plus),
            lr=self.assignment.learning_rate,
            fused=self.device.type == "cuda",
        )

    def hold_to(self, start: Adapter) -> None:
        """Store the start values of training in the device's current shape, if FedProx is used."""
        self.start = start
        values = start.tensors() if self.task.training.proximal > 0 else []
        pairs = zip(self.adapted.parameters(), values, strict=bool(values))
        self.anchors = [(parameter, torch.from_numpy(value).to(parameter)) for parameter, value in pairs]

    def hold(self) -> None:
        """Add the gradient of FedProx's mu/2 |w - w_sent|^2 (Li et al., arXiv 1812.06127, equation 2)."""
        with torch.no_grad():
            for parameter, anchor in self.anchors:
                if parameter.grad is not None:
                    parameter.grad.add_(parameter - anchor, alpha=self.task.training.proximal)

    def prune(self, fleet_scores: np.ndarray, share: float) -> None:
        """Remove the units of the event from model, factors and moments."""
        structure = prune(self.assignment, self.structure, self.scores.value(), fleet_scores, share, self.task.pruning)
        if structure is self.structure:
            return
        had, old, state = self.structure, self.adapted, dict(self.optimizer.state)
        self.build(structure, narrow(old.read(), had, structure))
        self.carry_moments(old, state, had)
        self.hold_to(narrow(self.start, had, structure))

    def carry_moments(
        self, old: AdaptedModel, state: Mapping[torch.Tensor, Mapping[str, torch.Tensor]], had: Structure
    ) -> None:
        """Set AdamW's moments to ``state`` of the ``old`` model with structure ``had``, sliced to the new structure."""
        if not state:
            return
        step = state[old.parameters()[0]]["step"]

        def carried(name: str) -> Adapter:
            def moment(parameter: torch.nn.Parameter) -> torch.Tensor:  # no moments before the first gradient
                return state[parameter][name] if parameter in state else torch.zeros_like(parameter)

            return narrow(old.read(moment), had, self.structure)

        first, second = carried("exp_avg"), carried("exp_avg_sq")
        for parameter, mean, square in zip(self.adapted.parameters(), first.tensors(), second.tensors(), strict=True):
            self.optimizer.state[parameter] = {
                "step": step.clone(),
                "exp_avg": torch.from_numpy(mean).to(parameter),
                "exp_avg_sq": torch.from_numpy(square).to(parameter),
            }

    def step(self, batch: Batch, step: int) -> None:
        """One optimiser step, with scores while the device still has units to prune."""
        self.adapted.model.train()
        begin, end = self.assignment.learning_rate, self.assignment.learning_rate_end
        rate = begin + (end - begin) * step / self.assignment.local_steps
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["times"]
        self.companion.begin(step)
        loss, penalty = self._objective(batch), self.companion.penalty()
        (loss if penalty is None else loss + penalty).backward()
        if self.prunes:
            self.scores.add(self.importance.units, self.importance.score())
        self.hold()
        torch.nn.utils.clip_grad_norm_(self.adapted.parameters(), self.task.training.max_grad_norm)
        self.sensitivity += _sensitivity(self.adapted)
        self.optimizer.step()
        self.companion.end(rate)
        self.optimizer.zero_grad()
        self.workload = self.workload + self._work(*counted_shape(self.task, batch))

    def mean_loss(self, batches: tuple[Batch, ...]) -> float:
        """Mean loss on fixed batches, without dropout; counted as work if the agent asks for it."""
        if self.assignment.probed:
            for batch in batches:
                shape = counted_shape(self.task, batch)
                self.workload = self.workload + loss_workload(self.size, self.load, *shape)
        self.adapted.model.eval()
        with torch.no_grad():
            return float(torch.stack([self._loss(batch) for batch in batches]).double().mean())

    def _objective(self, batch: Batch) -> torch.Tensor:
        """The training loss: that of the text, and with a teacher the distance from its states or predictions."""
        if self.teacher is None:
            return self._loss(batch)
        mask, labels = batch["attention_mask"].to(self.device), batch["labels"].to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.task.dtype == "bf16"):
            wanted, predicted = taught(self.teacher.model, batch["input_ids"].to(self.device), mask)
        loss, states, logits = self._forward(batch, output_hidden_states=True)
        if self.task.training.recovery == "squarehead":
            loss = loss + square_head(states, wanted, mask)
        if self.task.training.kl > 0:
            loss = loss + self.task.training.kl * divergence(logits, predicted, labels)
        return loss

    def _work(self, rows: int, length: int) -> Workload:
        """Work of a step; a teacher adds its weights, in memory and read once, and its forward pass."""
        work = training_workload(self.size, self.load, 1, rows, length, self.task.training.checkpointing)
        if self.teacher is None:
            return work
        whole = self.teacher.size
        return Workload(
            work.flops + inference_flops(whole, rows, length) + whole.quantised_weights,
            work.traffic_bytes + float(whole.bytes_per_weight * whole.token_weights + whole.dequantising_bytes),
            work.peak_memory_bytes + float(whole.held_bytes),
        )

    def _loss(self, batch: Batch) -> torch.Tensor:
        return self._forward(batch)[0]

    def _forward(self, batch: Batch, **asked: bool) -> tuple[torch.Tensor, tuple[torch.Tensor, ...], torch.Tensor]:
        """The text's mean loss, the states after every layer if requested, and the logits."""
        inputs = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
        labels = inputs.pop("labels")
        self.importance.see(counted(inputs["attention_mask"], labels))
        mixed = torch.autocast(self.device.type, torch.bfloat16, enabled=self.task.dtype == "bf16")
        # A checkpointed layer keeps no activations.
        spared = nullcontext() if self.task.training.checkpointing else self.activations.recomputed()
        with mixed, spared:
            output = self.adapted.model(**inputs, **asked, **without_cache(self.adapted.model))
        states = tuple(output.hidden_states[1:]) if asked else ()
        return device_losses(output.logits, labels, 1)[0], states, output.logits


def _sensitivity(adapted: AdaptedModel) -> torch.Tensor:
    """Sum of |p * gp| over the adapter's parameters, a scalar: first-order change of the loss if they were zero."""
    with torch.no_grad():
        parts = [(p * p.grad).abs().sum() for p in adapted.adapter_parameters() if p.grad is not None]
        return torch.stack(parts).sum()
