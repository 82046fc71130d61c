"""The equations of a low-rank change, for one device's factors [r, in], [out, r] or a cohort's [devices, ...]."""

import torch
from torch import nn

from slimfed.clients.tensors import gradient


def merged(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scaling: float) -> torch.Tensor:
    """W + scaling * B A, [..., out, in]."""
    return weight + scaling * b @ a


def first_order(weight: torch.Tensor, a: nn.Parameter, b: nn.Parameter, scaling: float, side: str) -> torch.Tensor:
    """LoRAPrune's surrogate G = gB A + B gA (arXiv 2305.18403), times the merged weight, summed by row or column.

    It is computed without the o x i matrix G (algorithms 2.2), in O((o + i) r) memory. The second-order term gB gA of
    the paper mixes units with the learning rate and is left out.
    """
    grad_a, grad_b = gradient(a), gradient(b)
    if side == "out":
        through = [weight @ f.mT + scaling * (b @ (a @ f.mT)) for f in (a, grad_a)]
        return ((grad_b * through[0]).sum(-1) + (b * through[1]).sum(-1)).abs()
    through = [f.mT @ weight + scaling * ((f.mT @ b) @ a) for f in (grad_b, b)]
    return ((a * through[0]).sum(-2) + (grad_a * through[1]).sum(-2)).abs()
