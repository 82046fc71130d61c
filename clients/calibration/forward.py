"""Forward passes for calibration: evaluation mode, no gradients, and which tokens count."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from slimfed.clients.data.batching import Batch
from slimfed.clients.models.families import without_cache


@dataclass(frozen=True)
class Counted:
    """The tokens of a batch that count: ``mask`` is bool [rows * length], false for padding."""

    mask: torch.Tensor

    def of(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` [rows, length, width], or [rows * length, width], at the counted tokens: float64 [tokens, width]."""
        return x.detach().reshape(-1, x.shape[-1])[self.mask].double()


def forward_passes(model: nn.Module, batches: Iterable[Batch], dtype: torch.dtype = torch.float32) -> Iterator[Counted]:
    """Pass each batch through ``model``; before each pass, yields which tokens of it count, for the model's hooks."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        for batch in batches:
            there = {name: tensor.to(device) for name, tensor in batch.items() if name != "labels"}
            yield Counted(there["attention_mask"].reshape(-1).bool())
            # Not around the yield: a generator would leave the caller in its context.
            with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                model(**there, **without_cache(model))
    finally:
        model.train(was_training)
