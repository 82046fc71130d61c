"""A cohort's round: the steps of ``training/single_device.py`` for all devices at once."""

import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters import ADAPTERS, AdapterMethod
from slimfed.clients.adapters.targets import targeted
from slimfed.clients.adapters.training.broadcast import Broadcast
from slimfed.clients.importance import IMPORTANCE
from slimfed.clients.importance.smoothing import SmoothedScores
from slimfed.clients.models.attention import short_attention
from slimfed.clients.models.cost import AdapterLoad, Dimensions, loss_workload, training_workload
from slimfed.clients.models.dimensions import measure
from slimfed.clients.models.families import ENCODERS, without_cache
from slimfed.clients.pruning.events import can_prune, prune, prune_steps
from slimfed.clients.structure import Structure
from slimfed.clients.training.cohort.collate import join
from slimfed.clients.training.cohort.cuda_graph import Launcher, launcher
from slimfed.clients.training.cohort.first_token import read_first_token
from slimfed.clients.training.cohort.flat_parameters import Trained
from slimfed.clients.training.cohort.model import Members, attach_cohort
from slimfed.clients.training.losses import counted, device_losses
from slimfed.clients.training.memory import peak_memory
from slimfed.clients.training.work import Batch, CohortWork, DeviceContext, counted_shape
from slimfed.clients.update import Report, Update, Workload


def train_cohort(context: DeviceContext, work: CohortWork) -> list[Update]:
    """Train several devices for one round in one pass over the shared base.

    Each device gets exactly the training that ``train_device`` gives it (to rounding): its own batches, factors, mask,
    gradient norm, moments and scores. All assignments must have the same steps and learning rates, and the adapter must
    have no dropout. ``seconds`` and ``measured_memory_bytes`` of an update are the device's share of the cohort's.
    """
    started = time.perf_counter()
    watch, assignments, data = context.watch, work.assignments, work.data
    with watch.phase("build"):
        session = _Session(context, work)
    steps = assignments[0].local_steps
    events = prune_steps(steps, context.task.pruning.events) if any(session.prunes) else {}
    probes = [part.probe for part in data]
    with peak_memory(context.base.model.device) as memory:
        with watch.phase("probe"):
            passes = session.joined(probes)
            before = session.losses(passes)
            session.account_losses(probes)
        with watch.phase("batches"):
            launched = session.load([part.batches() for part in data])
        for step in range(steps):
            if step in events:
                with watch.phase("prune"):
                    session.prune(work.scores, events[step])
            with watch.phase("steps"):
                session.companion.begin(step)
                launched.take()
                session.account(step)
            context.meter.train(len(assignments) / steps)
        with watch.phase("probe"):
            after = session.losses(passes)
            session.account_losses(probes)
    with watch.phase("read"):
        learnt = session.cohort.read(session.structures)
        adapters = [session.method.closed(own, a.rank) for own, a in zip(learnt, assignments, strict=True)]
        scores, sensitivity = session.scores.value(), (session.sensitivity / steps).tolist()
        loss_before, loss_after = (_per_device(losses, probes) for losses in (before, after))
    seconds = (time.perf_counter() - started) / len(assignments)
    reports = [
        Report(
            device=assignment.device,
            round=assignment.round,
            rank=assignment.rank,
            effective_rank=adapters[n].effective_rank,
            structure=session.structures[n],
            loss_before=loss_before[n],
            loss_after=loss_after[n],
            importance=sensitivity[n],
            examples=data[n].examples,
            seconds=seconds,
            measured_memory_bytes=memory.peak // len(assignments),
            workload=session.workloads[n],
            evaluation=None,
        )
        for n, assignment in enumerate(assignments)
    ]
    kept = [s.keep & prunes for s, prunes in zip(session.structures, session.prunes, strict=True)]
    return [Update(r, adapters[n], np.where(kept[n], scores[n], np.float32(0.0))) for n, r in enumerate(reports)]


class _Session:
    """The state of a cohort's round; lists have one entry for each device."""

    def __init__(self, context: DeviceContext, work: CohortWork) -> None:
        base, blueprint, task, assignments = context.base, context.blueprint, context.task, work.assignments
        self.base = base
        self.watch = context.watch
        self.task = task
        self.assignments = assignments
        self.device = base.model.device
        self.structures = [assignment.structure for assignment in assignments]
        self.method = ADAPTERS[task.adapter.name]
        opened = _opened(self.method, work.adapters)
        ranks = [assignment.rank for assignment in assignments]
        self.cohort = attach_cohort(base.model, Members(opened, self.structures, ranks), task.adapter, context.dtype)
        self.companion = self.method.training.companion(self.cohort, task, assignments[0].round, ranks)
        self.prunes = [can_prune(assignment, task.pruning) for assignment in assignments]
        if any(self.prunes) or not all(structure.keep.all() for structure in self.structures):
            self.cohort.set_structures(self.structures)
        self.trained = Trained(self.cohort, task.training.weight_decay, task.training.proximal, task.adapter.lora_plus)
        self.scores = SmoothedScores(blueprint, task.pruning.smoothing, self.cohort.lead, self.device)
        self.importance = IMPORTANCE[task.pruning.importance](blueprint, [a.seed for a in assignments])
        if any(self.prunes):
            self.importance.watch(self.cohort, self.structures, self.cohort.envelope)
        if not (any(self.prunes) and self.importance.needs_inputs):
            read_first_token(self.cohort.model, blueprint)
        self.sensitivity = torch.zeros(len(assignments), device=self.device)
        self.targets = targeted(blueprint, task.adapter.targets)
        self.measured: dict[bytes, Dimensions] = {}
        self.sizes = [self.size(structure) for structure in self.structures]
        self.sent = work.adapters[0]
        self.loads = [self.adapter_load(n) for n in range(len(assignments))]
        self.workloads = [Workload(0.0, 0.0, 0.0)] * len(assignments)
        self.optimizer = self.trained.optimizer(assignments[0].learning_rate)
        self.causal = base.model.config.model_type not in ENCODERS

    def size(self, structure: Structure) -> Dimensions:
        """Sizes of the model in ``structure``, cached by structure."""
        key = structure.keep.tobytes()
        if key not in self.measured:
            self.measured[key] = measure(self.base.model, structure.blueprint, structure, self.targets)
        return self.measured[key]

    def adapter_load(self, n: int) -> AdapterLoad:
        """Cost of device ``n``'s adapter beside its model."""
        return self.method.load(self.sizes[n], self.assignments[n].rank, self.sent)

    def prune(self, fleet_scores: np.ndarray, share: float) -> None:
        """Remove the units of the event on each device that prunes, from masks, factors and moments."""
        scores = self.scores.value()
        for n, assignment in enumerate(self.assignments):
            if self.prunes[n]:
                structure = prune(assignment, self.structures[n], scores[n], fleet_scores, share, self.task.pruning)
                if structure is not self.structures[n]:
                    self.structures[n] = structure
                    self.sizes[n] = self.size(structure)
                    self.loads[n] = self.adapter_load(n)
        self.cohort.set_structures(self.structures)
        self.cohort.clear_removed(self.structures, self.optimizer)
        self.importance.restrict(self.structures)

    def load(self, streams: Sequence[Iterator[Batch]]) -> Launcher:
        """Draw all batches of the round and prepare its steps.

        The launcher must not be an attribute of this session, since the cycle would keep all tensors alive.
        """
        first = self.assignments[0]
        begin, end, steps = first.learning_rate, first.learning_rate_end, first.local_steps
        rates = [begin + (end - begin) * step / steps for step in range(steps)]
        self.batches = [[next(stream) for stream in streams] for _ in range(steps)]
        self.cohort.model.train()
        return launcher(self.advance, self.batches, self.base.pad_id, rates, self.optimizer, self.device)

    def account(self, step: int) -> None:
        """Add the cost of a step for each device training alone."""
        for n, batch in enumerate(self.batches[step]):
            work = training_workload(self.sizes[n], self.loads[n], 1, *counted_shape(self.task, batch))
            self.workloads[n] = self.workloads[n] + work

    def account_losses(self, probes: Sequence[tuple[Batch, ...]]) -> None:
        """Add the cost of the losses before or after, for devices whose agent asks for them."""
        for n, (assignment, probe) in enumerate(zip(self.assignments, probes, strict=True)):
            if assignment.probed:
                for batch in probe:
                    work = loss_workload(self.sizes[n], self.loads[n], *counted_shape(self.task, batch))
                    self.workloads[n] = self.workloads[n] + work

    def advance(self, batch: Batch) -> None:
        """One optimiser step with a joined batch; all tensors change in place."""
        losses, penalty = self._losses(batch, len(self.assignments)), self.companion.penalty()
        self.trained.differentiate((losses if penalty is None else losses + penalty).sum())
        if any(self.prunes):
            with self.watch.phase("importance"):
                self.scores.add(self.importance.units, self.importance.score())
        self.trained.hold()
        self.trained.clip(self.task.training.max_grad_norm)
        self.sensitivity += self.trained.sensitivity()
        self.trained.move(self.optimizer)
        self.companion.end(self.optimizer.param_groups[0]["lr"])

    def joined(self, probes: Sequence[tuple[Batch, ...]]) -> list[tuple[Batch, int]]:
        """Passes over the devices' fixed batches, and the number of each device's batches in a pass.

        Devices with fewer batches repeat their last one. A GPU takes all batches in one pass; a CPU takes short and
        long ones separately, with less padding.
        """
        count = max(len(probe) for probe in probes)
        width = count if self.device.type == "cuda" else 1
        passes = []
        for start in range(0, count, width):
            places = range(start, start + width)
            batch = join([probe[min(i, len(probe) - 1)] for probe in probes for i in places], self.base.pad_id)
            passes.append(({name: tensor.to(self.device) for name, tensor in batch.items()}, width))
        return passes

    def losses(self, passes: Sequence[tuple[Batch, int]]) -> torch.Tensor:
        """Each device's losses in its fixed batches, [devices, most batches]."""
        self.cohort.model.eval()
        devices = len(self.assignments)
        with torch.no_grad():
            return torch.cat([self._losses(batch, devices * n).reshape(devices, n) for batch, n in passes], dim=1)

    def _losses(self, batch: Batch, parts: int) -> torch.Tensor:
        """Mean losses of ``parts`` equal parts of a joined batch."""
        ids, labels, mask = batch["input_ids"], batch["labels"], batch.get("attention_mask")
        tokens = torch.ones_like(ids) if mask is None else mask
        self.importance.see(counted(tokens, labels))
        # Without a mask, transformers searches the rows of a decoder for packed texts.
        told = tokens if self.causal else mask
        with short_attention(ids):
            logits = self.cohort.model(input_ids=ids, attention_mask=told, **without_cache(self.cohort.model)).logits
        return device_losses(logits, labels, parts)


def _per_device(losses: torch.Tensor, probes: Sequence[tuple[Batch, ...]]) -> list[float]:
    """Each device's mean over its own batches, of losses [devices, most batches]. Waits for the GPU."""
    rows = losses.double().cpu().numpy()
    return [float(row[: len(probe)].mean()) for row, probe in zip(rows, probes, strict=True)]


def _opened(method: AdapterMethod, adapters: Sequence[Adapter]) -> Sequence[Adapter]:
    """Adapters in their training form; for factors, opening and slicing commute."""
    if isinstance(adapters, Broadcast) and not adapters.whole.deltas:
        return adapters.with_whole(method.opened(adapters.whole))
    return [method.opened(adapter) for adapter in adapters]
