"""Layer shares by how much the loss moves when a block's weights are disturbed: no gradient is computed."""

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from slimfed.clients.allocation.base import ALLOCATIONS, Allocation, Probe
from slimfed.clients.seeds import derive
from slimfed.clients.structure import Block, Blueprint

if TYPE_CHECKING:
    import torch

STEP = 1e-3
"""e: the disturbance of each weight is e z with z drawn from N(0, 1)."""


@ALLOCATIONS.register("zeroth")
class Zeroth(Allocation):
    """A block keeps the more, the more random steps of its weights move the loss (ECoFLaP, arXiv 2310.02998).

    q_b is the mean over batches, weighted by their tokens, of abs(L(W_b + e z) - L(W_b - e z)) / (2 e), with one z
    drawn anew for each batch and block: the choice of the released scripts, of three that the release has [code
    ylsung/ECoFLaP]. A measure takes two forward passes a block and batch, and the activations of none are kept.
    """

    measures: ClassVar[bool] = True
    passes_per_block: ClassVar[int] = 2

    def measure(self, probe: Probe) -> np.ndarray:
        """Tokens, and the sum over batches of the blocks' slopes times the batch's tokens."""
        import torch  # not above: see base.py

        tokens, slopes = 0, np.zeros(len(probe.blueprint.blocks))
        was_training = probe.model.training
        probe.model.eval()
        try:
            with torch.no_grad():
                for number, batch in enumerate(probe.batches):
                    counted = int(batch["attention_mask"].sum())
                    tokens += counted
                    for index, block in enumerate(probe.blueprint.blocks):
                        draw = derive(probe.seed, "zeroth", number, index)
                        slopes[index] += counted * abs(_slope(probe, batch, block, draw))
        finally:
            probe.model.train(was_training)
        return np.concatenate([[tokens], slopes])

    def weights(self, blueprint: Blueprint, measured: np.ndarray | None, kept: float) -> np.ndarray:
        """The mean slopes; none is 0, since a block that does not move the loss may still be kept where others may."""
        if measured is None:
            raise ValueError('pruning.allocation = "zeroth" has measured nothing yet')
        slopes = measured[1:] / measured[0]
        return np.maximum(slopes, 1e-6 * max(float(slopes.max()), 1e-12))


def _slope(probe: Probe, batch: "dict[str, torch.Tensor]", block: Block, seed: int) -> float:
    """The slope of the loss on ``batch`` along one random direction of the block's weights, which are put back."""
    import torch

    modules = [probe.model.get_submodule(name) for name in dict.fromkeys(cut.module for cut in block.cuts)]
    weights = [module.get_parameter("weight") for module in modules]
    draw = torch.Generator().manual_seed(seed)
    steps = [STEP * torch.randn(weight.shape, generator=draw).to(weight) for weight in weights]
    losses = []
    try:
        for sign in (1, -1):
            for module, weight, step in zip(modules, weights, steps, strict=True):
                module.weight = torch.nn.Parameter(weight + sign * step, requires_grad=False)
            losses.append(_loss(probe, batch))
    finally:  # the weights themselves, not what adding and subtracting leaves of them
        for module, weight in zip(modules, weights, strict=True):
            module.weight = weight
    return (losses[0] - losses[1]) / (2 * STEP)


def _loss(probe: Probe, batch: "dict[str, torch.Tensor]") -> float:
    """Mean loss on ``batch``, without autocast, whose rounding would be as large as what is looked for."""
    from slimfed.clients.models.families import without_cache
    from slimfed.clients.training.losses import device_losses

    there = {name: tensor.to(probe.model.device) for name, tensor in batch.items() if name != "labels"}
    logits = probe.model(**there, **without_cache(probe.model)).logits
    return float(device_losses(logits, batch["labels"].to(probe.model.device), 1)[0])
