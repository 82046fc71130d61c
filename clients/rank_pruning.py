"""HetLoRA's rank self-pruning: a device gives up its last ranks when training has made them smaller."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from slimfed.clients.adapters.base import Adapted, AdaptedLayer, Companion
from slimfed.clients.slicing import narrow
from slimfed.clients.spec import AdapterSpec
from slimfed.clients.update import Adapter, Update


class TailPenalty(Companion):
    """mu * sum over the modules of ||B[:, c:]||_F ||A[c:]||_F, with c the ranks that a device keeps if it gives up any.

    Cho et al., arXiv 2401.06432, section 3.3. ``ranks``: those of the devices, one without a leading axis.
    """

    def __init__(self, adapted: Adapted, spec: AdapterSpec, ranks: Sequence[int]) -> None:
        self.layers: Mapping[str, AdaptedLayer] = adapted.layers
        self.strength = spec.tail_penalty
        kept = torch.tensor([kept_ranks(rank, spec) for rank in ranks], device=adapted.device)
        tail = torch.arange(max(ranks), device=adapted.device) >= kept[:, None]
        self.tail = tail.view(*adapted.lead, max(ranks))

    def penalty(self) -> torch.Tensor:
        """[*lead]. Ranks beyond a device's own are 0 and add nothing."""
        products = []
        for layer in self.layers.values():
            a, b = layer.trained()
            products.append(_norm(a * self.tail[..., :, None]) * _norm(b * self.tail[..., None, :]))
        return self.strength * torch.stack(products).sum(0)


def kept_ranks(rank: int, spec: AdapterSpec) -> int:
    """What a device of ``rank`` keeps if it gives up ranks: floor(gamma r), but no less than the job's smallest."""
    return max(min(rank, spec.least_rank), math.floor(spec.keep_ranks * rank))


def self_pruned(update: Update, sent: Adapter, spec: AdapterSpec) -> Update:
    """The update, cut to :func:`kept_ranks` if the tail beyond them is smaller than in what was ``sent``.

    ``sent`` has the update's rank and structure. A tail that was 0 cannot have shrunk.
    """
    kept = kept_ranks(update.rank, spec)
    if not tail_product(update.adapter, kept) < tail_product(sent, kept):
        return update
    return replace(update, rank=kept, adapter=narrow(update.adapter, update.structure, update.structure, kept))


def tail_product(adapter: Adapter, kept: int) -> float:
    """sum over the modules of ||B[:, kept:]||_F ||A[kept:]||_F."""
    return math.fsum(
        float(np.linalg.norm(f.b[:, kept:].astype(np.float64)) * np.linalg.norm(f.a[kept:].astype(np.float64)))
        for f in adapter.factors.values()
    )


def _norm(matrices: torch.Tensor) -> torch.Tensor:
    """Frobenius norms; the slope of one that is 0 is 0."""
    return torch.linalg.vector_norm(matrices, dim=(-2, -1))
