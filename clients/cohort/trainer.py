"""A cohort's round: the steps of ``clients.trainer``, taken by all of its devices at once."""

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch.linalg import vector_norm

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.adapters.base import parameter_groups
from slimfed.clients.cohort.batch import Batch, join
from slimfed.clients.cohort.model import attach_cohort
from slimfed.clients.cost import Dimensions, measure, training_workload
from slimfed.clients.importance import IMPORTANCE, SmoothedScores
from slimfed.clients.losses import counted, device_losses
from slimfed.clients.memory import peak_memory
from slimfed.clients.models import LoadedModel
from slimfed.clients.pruning import can_prune, prune, prune_steps
from slimfed.clients.spec import TaskSpec
from slimfed.clients.structure import Blueprint, Structure
from slimfed.clients.tensors import gradient
from slimfed.clients.trainer import DeviceData
from slimfed.clients.update import Adapter, Assignment, Update, Workload


def train_cohort(
    base: LoadedModel,
    blueprint: Blueprint,
    task: TaskSpec,
    assignments: Sequence[Assignment],
    adapters: Sequence[Adapter],
    fleet_scores: np.ndarray,
    data: Sequence[DeviceData],
) -> list[Update]:
    """Train several devices for one round in one pass over the shared base.

    Each device gets exactly the training that ``train_device`` gives it (to rounding): its own batches, factors, mask,
    gradient norm, moments and scores. All assignments must ask for the same steps and learning rates, and the adapter
    must have no dropout. ``seconds`` and ``measured_memory_bytes`` of an update are the device's share of the cohort's.
    """
    started = time.perf_counter()
    session = _Session(base, blueprint, task, assignments, adapters)
    steps = assignments[0].local_steps
    events = prune_steps(steps, task.pruning.events) if any(session.prunes) else {}
    streams = [part.batches() for part in data]
    with peak_memory(base.model.device) as memory:
        before = session.mean_losses([part.probe for part in data])
        for step in range(steps):
            if step in events:
                session.prune(fleet_scores, events[step])
            session.step([next(stream) for stream in streams], step)
        after = session.mean_losses([part.probe for part in data])
    scores, sensitivity = session.scores.value(), (session.sensitivity / steps).tolist()
    learnt = session.cohort.read(session.structures)
    seconds = (time.perf_counter() - started) / len(assignments)
    return [
        Update(
            device=assignment.device,
            round=assignment.round,
            rank=assignment.rank,
            structure=session.structures[n],
            adapter=session.method.closed(learnt[n]),
            scores=np.where(session.structures[n].keep & session.prunes[n], scores[n], np.float32(0.0)),
            loss_before=before[n],
            loss_after=after[n],
            importance=sensitivity[n],
            examples=data[n].examples,
            seconds=seconds,
            measured_memory_bytes=memory.peak // len(assignments),
            workload=session.workloads[n],
            evaluation=None,
        )
        for n, assignment in enumerate(assignments)
    ]


class _Session:
    """The moving parts of a cohort's round; whatever is a list here has one entry a device."""

    def __init__(
        self,
        base: LoadedModel,
        blueprint: Blueprint,
        task: TaskSpec,
        assignments: Sequence[Assignment],
        adapters: Sequence[Adapter],
    ) -> None:
        self.base = base
        self.task = task
        self.assignments = assignments
        self.device = base.model.device
        self.structures = [assignment.structure for assignment in assignments]
        self.method = ADAPTERS[task.adapter.name]
        opened = [self.method.opened(adapter) for adapter in adapters]
        self.cohort = attach_cohort(base.model, blueprint, opened, self.structures, task.adapter)
        self.companion = self.method.companion(self.cohort, task, assignments[0].round)
        self.prunes = [can_prune(assignment, task.pruning) for assignment in assignments]
        self.scores = SmoothedScores(blueprint, task.pruning.smoothing, self.cohort.lead, self.device)
        self.importance = IMPORTANCE[task.pruning.importance](blueprint, [a.seed for a in assignments])
        self.importance.watch(self.cohort, self.structures)
        self.sensitivity = torch.zeros(len(assignments), device=self.device)
        self.measured: dict[bytes, Dimensions] = {}
        self.sizes = [self.size(structure) for structure in self.structures]
        self.workloads = [Workload(0.0, 0.0, 0.0)] * len(assignments)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.cohort, task.training.weight_decay),
            lr=assignments[0].learning_rate,
            fused=self.device.type == "cuda",
        )

    def size(self, structure: Structure) -> Dimensions:
        """Sizes of the model in ``structure``, measured once for all devices that have it."""
        key = structure.keep.tobytes()
        if key not in self.measured:
            self.measured[key] = measure(self.base.model, structure.blueprint, structure)
        return self.measured[key]

    def prune(self, fleet_scores: np.ndarray, share: float) -> None:
        """Remove what the event asks of each device that prunes; masks, factors and moments follow."""
        scores = self.scores.value()
        for n, assignment in enumerate(self.assignments):
            if self.prunes[n]:
                structure = prune(assignment, self.structures[n], scores[n], fleet_scores, share, self.task.pruning)
                if structure is not self.structures[n]:
                    self.structures[n] = structure
                    self.sizes[n] = self.size(structure)
        self.cohort.set_structures(self.structures)
        self.cohort.clear_removed(self.structures, self.optimizer)
        self.importance.restrict(self.structures)

    def step(self, batches: Sequence[Batch], step: int) -> None:
        """One optimiser step of every device."""
        self.cohort.model.train()
        begin, end = self.assignments[0].learning_rate, self.assignments[0].learning_rate_end
        rate = begin + (end - begin) * step / self.assignments[0].local_steps
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self._losses(batches).sum().backward()
        if any(self.prunes):
            self.scores.add(self.importance.units, self.importance.score())
        self._clip()
        self._measure_sensitivity()
        self.optimizer.step()
        self.companion.end(rate)
        self.optimizer.zero_grad()
        for n, batch in enumerate(batches):
            work = training_workload(self.sizes[n], self.assignments[n].rank, 1, *batch["input_ids"].shape)
            self.workloads[n] = self.workloads[n] + work

    def mean_losses(self, probes: Sequence[tuple[Batch, ...]]) -> list[float]:
        """Each device's mean loss over its fixed batches; devices may have unequally many."""
        self.cohort.model.eval()
        rounds = max(len(probe) for probe in probes)
        with torch.no_grad():
            losses = [self._losses([probe[min(i, len(probe) - 1)] for probe in probes]) for i in range(rounds)]
        columns = torch.stack(losses).double().cpu().numpy()
        return [float(columns[: len(probe), n].mean()) for n, probe in enumerate(probes)]

    def _losses(self, batches: Sequence[Batch]) -> torch.Tensor:
        joined = join(batches, self.base.pad_id)
        inputs = {name: tensor.to(self.device, non_blocking=True) for name, tensor in joined.items()}
        labels = inputs.pop("labels")
        self.importance.see(counted(inputs["attention_mask"], labels))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.task.dtype == "bf16"):
            logits = self.cohort.model(**inputs).logits
        return device_losses(logits, labels, len(batches))

    def _clip(self) -> None:
        """Scale each device's gradients to its own norm, as ``clip_grad_norm_`` does for one."""
        gradients = [gradient(p) for p in self.cohort.parameters()]
        norms = vector_norm(torch.stack([vector_norm(g.flatten(1), dim=1) for g in gradients]), dim=0)
        scale = (self.task.training.max_grad_norm / (norms + 1e-6)).clamp(max=1.0)
        for g in gradients:
            g.mul_(scale.reshape(-1, *[1] * (g.dim() - 1)))

    def _measure_sensitivity(self) -> None:
        """Sum of |p * gp| over what each device's adapter trains (algorithms section 1, step 4)."""
        with torch.no_grad():
            parts = [vector_norm((p * gradient(p)).flatten(1), ord=1, dim=1) for p in self.cohort.adapter_parameters()]
            self.sensitivity += torch.stack(parts).sum(0)
