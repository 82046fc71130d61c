"""Operations, memory traffic and peak memory of LoRA training, counted over the shapes of the (sliced) model.

With N the weights every token is multiplied by, T the tokens of a pass, L the length of a text, d the width of the kept
heads and r the rank, the floating-point operations of one training step are

* 2 N T forward and as much again for the gradient of the activations; frozen weights need no gradient of their own;
* 3 * 2 r (in + out) T for the adapter: forward, gradient of the activations, gradient of the factors;
* 3 * 4 L d T for attention scores and their product with the values, full L x L also under a causal mask;
* 3 * 2 for each weight of the task head, once a text: it is trained in full and sees one position.

Norms, softmax, activation functions and the optimiser are left out, as they are bound by memory and counted as traffic.

A quantised weight is dequantised for each product: one operation a weight, its codes read and the result written.
Memory holds the codes and scales of all, and the largest module dequantised.

A device that trains alone recomputes outputs of activation functions; they are counted as kept. With checkpointing the
layers run forward twice, and keep their inputs and the activations of one layer at a time.

Operations agree with PyTorch's own counter to 3%, kept activations with what autograd keeps to 15%, for every family.
Calibration: Gemma-3-270M in bf16, rank 8 on all projections, batch 8, length 64 needs 0.84 GB of weights, activations
and adapter here, and with the log-probabilities of all positions and Python 1.9 GB; EdgeFlowerTune measured 589 to 731
MB for it on a Jetson Nano, with its own runtime in C++.
"""

from dataclasses import dataclass

from slimfed.clients.update import Workload

# Memory of a Python process with PyTorch before a model is loaded: our round figure.
_RUNTIME_BYTES = 300e6
# A number kept for backward is written and read by the forward pass, read by the backward pass, and its gradient is
# written and read.
_PASSES_OF_ACTIVATIONS = 5
# Under checkpointing it is also written and read by the second pass forward.
_PASSES_OF_RECOMPUTED = 7
# A trained number (fp32) is read forward and backward and its gradient written; AdamW reads value, gradient and two
# moments, and writes value and moments.
_PASSES_OF_TRAINED = 10
# Weights that an adapter recomputes at every step: written, read forward and backward, their gradient written and read.
_PASSES_OF_WEIGHTS = 5
# Value, gradient and two moments, fp32.
_BYTES_PER_TRAINED = 16
# Log-probabilities, their gradient and that of the logits exist at once when the loss is differentiated.
_COPIES_OF_LOGITS = 3


@dataclass(frozen=True)
class Dimensions:
    """Sizes of a model in one structure.

    ``token_weights``: weights that every token is multiplied by, the output embedding of a causal-lm among them.
    ``head_weights``: weights of pooler and task head, which see one position of a text.
    ``adapter_parameters_per_rank``: in + out, summed over the modules that carry an adapter; ``adapted_modules``: their
    number. ``adapted_weights``: in * out, summed over all modules that can be pruned. ``kept_head_width``: width of the
    kept query heads, summed over the layers.
    ``activations``: numbers a token leaves in the layers for the backward pass; ``layer_inputs``: those that the layers
    are given; ``largest_layer``: those that one layer leaves at most. ``layers``: how many there are. ``logits``:
    numbers a token leaves in the loss (vocabulary size of a causal-lm, else 0). ``parameters``: of the whole model,
    embeddings included.
    ``quantised_weights``: those of ``parameters`` that are held in ``quantised_bytes``; ``largest_quantised``: those of
    the largest module among them. All 0 without quantisation.
    """

    token_weights: int
    head_weights: int
    adapter_parameters_per_rank: int
    adapted_weights: int
    adapted_modules: int
    kept_head_width: int
    activations: int
    layer_inputs: int
    largest_layer: int
    layers: int
    logits: int
    parameters: int
    bytes_per_weight: int
    quantised_weights: int = 0
    quantised_bytes: int = 0
    largest_quantised: int = 0

    @property
    def held_bytes(self) -> int:
        """Bytes of all weights, as they are held."""
        return (self.parameters - self.quantised_weights) * self.bytes_per_weight + self.quantised_bytes

    @property
    def dequantising_bytes(self) -> int:
        """Bytes that one pass moves for dequantising: codes and scales are read, weights are written."""
        return self.quantised_bytes + self.quantised_weights * self.bytes_per_weight


@dataclass(frozen=True)
class AdapterLoad:
    """The cost of an adapter in a training step.

    ``trained``: trained numbers. ``token_flops``: operations for each token, forward and backward. ``activations``:
    numbers kept for the backward pass of each token. ``weights``: further numbers, computed once a step.
    """

    trained: int
    token_flops: int
    activations: int
    weights: int = 0


def low_rank_load(size: Dimensions, rank: int) -> AdapterLoad:
    """LoRA of one rank on every adapted module: forward, gradient of the activations, gradient of the factors."""
    adapter = rank * size.adapter_parameters_per_rank
    return AdapterLoad(adapter, 3 * 2 * adapter, rank * size.adapted_modules)


def training_workload(
    size: Dimensions, load: AdapterLoad, steps: int, batch: int, length: int, checkpointing: bool = False
) -> Workload:
    """Work of ``steps`` optimiser steps on batches of ``batch x length`` tokens, padding included.

    ``traffic_bytes``: weights of the matrix products read forward and backward at every step, activations, logits, and
    what is trained; embeddings are left out, as a step reads few of their rows. ``peak_memory_bytes``: runtime, all
    weights, adapter and head with gradient and two moments, activations and logits of a batch. Weights, activations and
    logits count in the type of the weights. With ``checkpointing`` the activations are those of the layers' inputs and
    of one layer, computed when the logits are freed; the layers' forward pass, with a third of the adapter's
    operations, counts twice.
    """
    tokens = batch * length
    trained = load.trained + size.head_weights
    attention = 4 * length * size.kept_head_width
    flops: float = tokens * (2 * 2 * size.token_weights + 3 * attention + load.token_flops)
    flops += batch * 3 * 2 * size.head_weights + 2 * size.quantised_weights
    kept = size.bytes_per_weight * tokens * (size.activations + load.activations)
    logits = size.bytes_per_weight * tokens * size.logits
    traffic = 2 * size.token_weights * size.bytes_per_weight + _PASSES_OF_ACTIVATIONS * (kept + logits)
    traffic += 2 * size.dequantising_bytes + _PASSES_OF_WEIGHTS * load.weights * size.bytes_per_weight
    traffic += 4 * _PASSES_OF_TRAINED * trained
    further = (load.weights + size.largest_quantised) * size.bytes_per_weight
    peak = _RUNTIME_BYTES + size.held_bytes + further + _BYTES_PER_TRAINED * trained
    if checkpointing:
        flops += tokens * (2 * size.adapted_weights + attention + load.token_flops / 3) + size.quantised_weights
        traffic += size.adapted_weights * size.bytes_per_weight + size.dequantising_bytes
        traffic += (_PASSES_OF_RECOMPUTED - _PASSES_OF_ACTIVATIONS) * kept
        one_layer = size.bytes_per_weight * tokens * (size.largest_layer + load.activations / size.layers)
        peak += size.bytes_per_weight * tokens * size.layer_inputs + max(one_layer, _COPIES_OF_LOGITS * logits)
    else:
        peak += kept + _COPIES_OF_LOGITS * logits
    return Workload(float(steps * flops), float(steps * traffic), float(peak))


def loss_workload(size: Dimensions, load: AdapterLoad, batch: int, length: int) -> Workload:
    """Work of the loss on one batch of ``batch x length`` tokens: a pass forward whose activations are not kept.

    ``traffic_bytes``: weights read once, activations and logits written and read. Memory is less than in training: 0.
    """
    tokens = batch * length
    flops = inference_flops(size, batch, length) + tokens * load.token_flops / 3 + size.quantised_weights
    moved = 2 * tokens * (size.activations + load.activations + size.logits) + size.token_weights + 2 * load.weights
    return Workload(float(flops), float(size.bytes_per_weight * moved + size.dequantising_bytes), 0.0)


def inference_flops(size: Dimensions, batch: int, length: int) -> float:
    """Operations of one forward pass over ``batch x length`` tokens, the adapter merged into the weights."""
    attention = 4 * length * size.kept_head_width
    return float(batch * (length * (2 * size.token_weights + attention) + 2 * size.head_weights))
