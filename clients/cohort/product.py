"""The one product that a cohort spends its time in, with a gradient that writes every tensor once."""

from typing import Any

import torch
from torch.nn.functional import linear


class AdaptedProduct(torch.autograd.Function):
    """y_n = W x_n + bias + B_n (A_n x_n) for devices n, with W and bias frozen.

    Shapes: x [devices, rows, in], W [out, in], bias [out] or ``None``, A [devices, r, in], B [devices, out, r], y
    [devices, rows, out]. Each device's part is added where the shared one lies, forward and backward; autograd's own
    formulas would copy y and add up the two parts of the gradient of x in a pass of their own.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, a: torch.Tensor, b: torch.Tensor
    ) -> torch.Tensor:
        """The product; keeps x and A x."""
        hidden = torch.bmm(x, a.mT)
        ctx.save_for_backward(x, hidden, weight, a, b)
        return linear(x, weight, bias).baddbmm_(hidden, b.mT)

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of x, A and B."""
        x, hidden, weight, a, b = ctx.saved_tensors
        slope = slopes[0]
        hidden_slope = torch.bmm(slope, b)
        x_slope = (slope @ weight).baddbmm_(hidden_slope, a) if ctx.needs_input_grad[0] else None
        return x_slope, None, None, torch.bmm(hidden_slope.mT, x), torch.bmm(hidden.mT, slope).mT
