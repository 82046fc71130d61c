"""The equations of a low-rank change, for one device's factors [r, in], [out, r] or a cohort's [devices, ...]."""

import torch
from torch import nn

from slimfed.clients.models.tensors import gradient


def merged(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scaling: float) -> torch.Tensor:
    """W + scaling * B A, [..., out, in]."""
    return weight + scaling * b @ a


def first_order(weight: torch.Tensor, a: nn.Parameter, b: nn.Parameter, scaling: float, side: str) -> torch.Tensor:
    """LoRAPrune's surrogate G = gB A + B gA (arXiv 2305.18403), times the merged weight, summed by row or column.

    It is computed without the o x i matrix G, in O((o + i) r) memory. The second-order term gB gA of
    the paper mixes units with the learning rate and is left out.
    """
    return _first_order(weight, a, b, scaling, side, ((gradient(b), a), (b, gradient(a))))


def gated_first_order(
    weight: torch.Tensor, a: nn.Parameter, b: nn.Parameter, gate: nn.Parameter, scaling: float, side: str
) -> torch.Tensor:
    """The same for B diag(g) A, whose first-order change is (gB diag(g) + B diag(gg)) A + B diag(g) gA."""
    columns = b * gate[..., None, :]
    moved = gradient(b) * gate[..., None, :] + b * gradient(gate)[..., None, :]
    return _first_order(weight, a, columns, scaling, side, ((moved, a), (columns, gradient(a))))


def _first_order(
    weight: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    scaling: float,
    side: str,
    direction: tuple[tuple[torch.Tensor, torch.Tensor], ...],
) -> torch.Tensor:
    """|row or column sums of (sum of L R over ``direction``) * (W + scaling * B A)|."""
    parts = []
    for left, right in direction:
        if side == "out":
            parts.append((left * (weight @ right.mT + scaling * (b @ (a @ right.mT)))).sum(-1))
        else:
            parts.append((right * (left.mT @ weight + scaling * ((left.mT @ b) @ a))).sum(-2))
    return torch.stack(parts).sum(0).abs()
