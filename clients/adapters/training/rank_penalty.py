"""HetLoRA's regulariser, which makes a device's last ranks small so that they can be pruned."""

from collections.abc import Mapping, Sequence

import torch

from slimfed.clients.adapters.rank_pruning import kept_ranks
from slimfed.clients.adapters.training.base import Companion
from slimfed.clients.adapters.training.protocols import Adapted, AdaptedLayer
from slimfed.clients.spec import AdapterSpec


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


def _norm(matrices: torch.Tensor) -> torch.Tensor:
    """Frobenius norms; the gradient of a norm of 0 is 0."""
    return torch.linalg.vector_norm(matrices, dim=(-2, -1))
