"""What a device's round needs, made of small random parts."""

from dataclasses import replace

import numpy as np
import torch
from small_models import VOCABULARY, build

from slimfed.clients.adapter import Adapter, Delta
from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.adapters.training.adapted import head_state
from slimfed.clients.data.batching import TokenisedSplit
from slimfed.clients.models.discovery import discover
from slimfed.clients.models.linear import shape_of
from slimfed.clients.models.loading import LoadedModel
from slimfed.clients.models.quantised_base import quantise_base
from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.clients.pruning.selection import select
from slimfed.clients.spec import AdapterSpec, DataSpec, ModelSpec, PruningSpec, TaskSpec, TrainingSpec
from slimfed.clients.structure import Blueprint, Structure
from slimfed.clients.training.teacher import open_teacher
from slimfed.clients.training.work import Batch, DeviceContext, DeviceData
from slimfed.clients.update import Assignment
from slimfed.strategies.aggregation import initial_adapter


class Tokenizer:
    """The one thing that training asks of a tokenizer."""

    pad_token_id = 0


def taught(base: LoadedModel, blueprint: Blueprint, job: TaskSpec) -> DeviceContext:
    """What the devices of a job share, with its teacher if it has one."""
    return DeviceContext(base, blueprint, job, teacher=open_teacher(job.training, job.model, None, base, blueprint))


def loaded(family: str, causal: bool) -> LoadedModel:
    """A small random model with the names of its head.

    In float64: AdamW divides by the gradient's size, which blows the rounding of a vanishing gradient up to a step.
    """
    model = build(family, causal).double()
    prefix = model.base_model_prefix + "."
    head = () if causal else tuple(name for name, _ in model.named_parameters() if not name.startswith(prefix))
    return LoadedModel(model, Tokenizer(), None if causal else ("no", "yes"), head, None)


_OF_ADAPTER = ("keep_ranks", "tail_penalty", "least_rank", "targets", "lora_plus")


def task(causal: bool, **training: object) -> TaskSpec:
    """A task with a lively learning rate, weight decay and two prune events a round."""
    options = {"local_steps": 7, "batch_size": 4, "learning_rate": 5e-3, "weight_decay": 0.05, "max_grad_norm": 0.5}
    set_apart = {key: training.pop(key) for key in _OF_ADAPTER if key in training}
    spec = AdapterSpec(name=training.pop("adapter", "lora"), **set_apart)
    pruning = {key: training.pop(key) for key in ("importance", "events", "prior_weight", "scope") if key in training}
    return TaskSpec(
        seed=1,
        devices=3,
        model=ModelSpec(task="causal-lm" if causal else "classification"),
        data=DataSpec(),
        adapter=spec,
        pruning=PruningSpec(**{"events": 2} | pruning),
        training=TrainingSpec(**options | training),
    )


def adapter(base: LoadedModel, blueprint: Blueprint, seed: int, rank: int) -> Adapter:
    """A global adapter that already does something."""
    shapes = {}
    for name in blueprint.modules:
        shapes[name] = shape_of(base.model.get_submodule(name))
    start = initial_adapter(shapes, rank, head_state(base.model, base.head), seed)
    draw = np.random.default_rng(seed)
    for factors in start.factors.values():
        factors.b[:] = draw.normal(0, 0.05, factors.b.shape)
    return start


def begun(kind: str, whole: Adapter, blueprint: Blueprint, seed: int) -> Adapter:
    """What a run with this kind of adapter goes on from once its first round is over; it already does something."""
    start = ADAPTERS[kind].begin(whole, blueprint, seed)
    if not start.undecided:
        return start
    draw = np.random.default_rng(seed)
    deltas = {}
    for name, delta in start.deltas.items():
        count = delta.shape[0] * delta.shape[1] // 3
        at = np.sort(draw.permutation(delta.shape[0] * delta.shape[1])[:count]).astype(np.int32)
        levels = draw.integers(1, 9, count).astype(np.uint16)
        deltas[name] = Delta(delta.shape, draw.normal(0, 0.05, count).astype(np.float32), at, levels)
    return replace(start, deltas=deltas)


def structure(blueprint: Blueprint, seed: int, sparsity: float) -> Structure:
    """A random structure near a sparsity."""
    return select(blueprint.dense(), np.random.default_rng(seed).random(blueprint.units), sparsity, "layer")


def assignment(device: int, rank: int, start: Structure, sparsity: float, steps: int = 7) -> Assignment:
    """One device's part of round 1."""
    return Assignment(device, 1, rank, sparsity, steps, 5e-3, 3e-3, 100 + device, False, start)


def narrowed(whole: Adapter, start: Structure, rank: int) -> Adapter:
    """What the server sends to a device."""
    return narrow(whole, start.blueprint.dense(), start, rank)


def device_data(device: int, causal: bool, examples: int) -> DeviceData:
    """Batches of unequal length, and of unequal size for a device with few examples."""
    draw = np.random.default_rng(1000 + device)

    def batch() -> Batch:
        rows, length = min(4, examples), int(draw.integers(5, 11))
        ids = torch.from_numpy(draw.integers(3, VOCABULARY, (rows, length)))
        mask = torch.ones_like(ids)
        if rows > 1:
            ids[-1, -2:], mask[-1, -2:] = 0, 0
        labels = ids.masked_fill(mask == 0, -100) if causal else torch.from_numpy(draw.integers(0, 2, rows))
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    def stream():
        while True:
            yield batch()

    return DeviceData(stream, (batch(), batch()), examples)


def opened(family: str, causal: bool, quantization: str = "none") -> tuple[LoadedModel, Blueprint]:
    """A base and its blueprint."""
    base = loaded(family, causal)
    if quantization != "none":
        quantise_base(base.model, quantization)
        base.model.double()  # scales, too
    return base, discover(base.model)


def split(causal: bool, seed: int, examples: int = 23) -> TokenisedSplit:
    """Made-up text to be measured on, of ``examples`` rows."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(3, 12, examples)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = draw.integers(3, VOCABULARY, offsets[-1]).astype(np.int32)
    labels = None if causal else draw.integers(0, 2, examples)
    prompts = draw.integers(0, 2, examples) if causal else np.zeros(examples, np.int64)
    return TokenisedSplit(tokens, offsets, labels, prompts, pad_id=0)
