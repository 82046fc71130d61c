"""Linear modules that serve a cohort: the frozen weight once for all rows, and every device's own part beside it.

The rows of a batch belong to the devices in equal parts, in order: x is [devices * rows, ..., in].
"""

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D


class CohortLinear(nn.Module):
    """y_n = W (m_n * x_n) + bias + scaling * B_n (A_n (m_n * x_n)) for device n.

    W [out, in] is shared and frozen; A is [devices, r, in], B [devices, out, r]. Smaller ranks are padded with zeros,
    which stay zero: the gradient of a zero row of A is made of the zero column of B, and the other way round. ``mask``,
    0/1 [devices, in], is set on the modules whose inputs are cut: with it, the factors' entries of a removed unit get
    no gradient either, so that masking trains what slicing would.
    """

    def __init__(self, base: nn.Module, a: torch.Tensor, b: torch.Tensor, scaling: float) -> None:
        super().__init__()
        self.base = base
        self.a = nn.Parameter(a)
        self.b = nn.Parameter(b)
        self.scaling = scaling
        self.mask: torch.Tensor | None = None

    @property
    def weight(self) -> torch.Tensor:
        """Frozen base weight [out, in]."""
        return self.base.weight.T if isinstance(self.base, Conv1D) else self.base.weight  # type: ignore[return-value]

    @property
    def module(self) -> nn.Module:
        """The module itself, to hook."""
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[devices * rows, ..., in] -> [devices * rows, ..., out]."""
        rows = x.reshape(len(self.a), -1, x.shape[-1])
        if self.mask is not None:
            rows = rows * self.mask[:, None, :].to(rows.dtype)
        y = self.base(rows)
        hidden = torch.bmm(rows, self.a.mT.to(rows.dtype))
        y = torch.baddbmm(y, hidden, self.b.mT.to(hidden.dtype), alpha=self.scaling)
        return y.reshape(*x.shape[:-1], -1)


class CohortHead(nn.Module):
    """A linear module of the task head, trained in full by every device: W [devices, out, in], bias [devices, out]."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[devices * rows, ..., in] -> [devices * rows, ..., out]."""
        rows = x.reshape(len(self.weight), -1, x.shape[-1])
        weight = self.weight.mT.to(rows.dtype)
        y = (
            torch.bmm(rows, weight)
            if self.bias is None
            else torch.baddbmm(self.bias[:, None].to(rows.dtype), rows, weight)
        )
        return y.reshape(*x.shape[:-1], -1)
