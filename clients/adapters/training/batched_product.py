"""The adapted product of a cohort, with a gradient that writes every tensor once."""

from typing import Any

import torch

from slimfed.clients.models.quantised_linear import Source

# Sizes are padded to a multiple of this, for matrix units.
_MULTIPLE = 8


class AdaptedProduct(torch.autograd.Function):
    """y_n = W x_n + bias + B_n (A_n x_n) for devices n, with W and bias frozen.

    Shapes: x [devices, rows, in], W [out, in] from its source, bias [out] or ``None``, A [devices, r, in], B [devices,
    out, r], y [devices, rows, out]. Each device's part is written first, and the large product accumulates into it,
    forward and backward. The source of W is asked both times, so that no dequantised W is kept. Autograd's formulas
    would copy y, and sum the two parts of the gradient of x in a separate pass over memory.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: Source, bias: torch.Tensor | None, a: torch.Tensor, b: torch.Tensor
    ) -> torch.Tensor:
        """The product; keeps x and A x."""
        hidden = torch.bmm(x, a.mT)
        ctx.save_for_backward(x, hidden, a, b)
        ctx.weight = weight
        return _add_product(torch.bmm(*_with_bias(hidden, b, bias)), x, weight().T)

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of x, A and B."""
        x, hidden, a, b = ctx.saved_tensors
        slope = slopes[0]
        hidden_slope = torch.bmm(slope, b)
        x_slope = None
        if ctx.needs_input_grad[0]:
            x_slope = _add_product(torch.bmm(hidden_slope, a), slope, ctx.weight())
        return x_slope, None, None, torch.bmm(hidden_slope.mT, x), torch.bmm(hidden.mT, slope).mT


def _with_bias(hidden: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors whose product is B_n h_n + bias: [h 1 0] and [B bias 0]^T. A separate sum would take another pass."""
    if bias is None:
        return hidden, b.mT
    one, column = (t.new_zeros(*t.shape[:-1], _MULTIPLE) for t in (hidden, b))
    one[..., 0], column[..., 0] = 1.0, bias
    return torch.cat([hidden, one], dim=-1), torch.cat([b, column], dim=-1).mT


def _add_product(own: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``own`` [devices, rows, out] += x [devices, rows, in] @ weight [in, out], in place."""
    own.view(-1, own.shape[-1]).addmm_(x.flatten(0, 1), weight)
    return own
