"""What LoRA training asks of a device's processor, counted over the real shapes of its (sliced) model.

With N the weights of the linear modules, T the tokens of a pass, L the length, d the width of the kept heads:

* forward 2 N T, and as much again for the gradient of the activations; frozen weights need no gradient;
* the adapter 2 r (in + out) T forward and twice that backward;
* attention scores and their product with the values 4 L d T forward and twice that backward.
"""

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from slimfed.clients.structure import Blueprint, Structure
from slimfed.clients.update import Workload

# What a Python process with PyTorch and its kernels holds before it has loaded a model [rec; 300 MB on a small board].
_RUNTIME_BYTES = 300e6
# Tensors of a block's width that autograd keeps beside the inputs of the linear modules: norms, residuals, activation
# functions, attention probabilities [rec].
_KEPT_PER_LINEAR = 2.0


@dataclass(frozen=True)
class Dimensions:
    """Sizes of a model in one structure. ``linear_weights`` counts all matrix products of a token's forward pass."""

    linear_weights: int
    adapter_parameters_per_rank: int
    kept_head_width: int
    activations: int
    parameters: int
    bytes_per_weight: int


def measure(model: PreTrainedModel, blueprint: Blueprint, structure: Structure) -> Dimensions:
    """Read the sizes off an unpruned ``model`` and the ``structure`` it is cut to; no weight is touched."""
    kept = structure.indices()
    linear = adapter = activations = width = 0
    removed = 0
    adapted = set(blueprint.modules)
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | Conv1D):
            continue
        rows, columns = module.weight.shape if isinstance(module, nn.Linear) else reversed(module.weight.shape)
        out = len(kept[name, "out"]) if (name, "out") in kept else rows
        into = len(kept[name, "in"]) if (name, "in") in kept else columns
        linear += out * into
        removed += rows * columns - out * into
        activations += into
        if name in adapted:
            adapter += out + into
    for index, block in enumerate(blueprint.blocks):
        if block.kind == "attention":
            output = block.cuts[-1]
            width += len(structure.kept(index)) * output.width
    total = sum(p.numel() for p in model.parameters())
    weight = next(model.parameters())
    return Dimensions(linear, adapter, width, activations, total - removed, weight.element_size())


def training_workload(size: Dimensions, rank: int, steps: int, tokens: int, batch: int, length: int) -> Workload:
    """Work of ``steps`` optimiser steps over ``tokens`` (padding included), the largest batch being ``batch x length``.

    ``traffic_bytes``: weights read forward and backward at every step, kept activations written and read in fp32.
    ``peak_memory_bytes``: runtime, weights, adapter with gradient and two moments (fp32), kept activations of the
    largest batch.
    """
    adapter = rank * size.adapter_parameters_per_rank
    forward = 2 * size.linear_weights + 4 * length * size.kept_head_width
    flops = tokens * (2 * forward + 4 * length * size.kept_head_width + 6 * adapter)
    kept = 4 * _KEPT_PER_LINEAR * size.activations
    traffic = steps * (2 * size.parameters * size.bytes_per_weight + 7 * 4 * adapter) + 2 * tokens * kept
    peak = _RUNTIME_BYTES + size.parameters * size.bytes_per_weight + 16 * adapter + batch * length * kept
    return Workload(float(flops), float(traffic), float(peak))
