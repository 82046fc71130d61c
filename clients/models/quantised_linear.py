"""A frozen linear module that holds its weight quantised, and products that dequantise it each time."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from slimfed.clients.models.linear import bias_of, is_transposed, set_weight, shape_of, weight_of
from slimfed.clients.models.weight_formats import FORMATS

Side = Literal["out", "in"]
Source = Callable[[], torch.Tensor]
"""Gives a weight [out, in] in the type of a product."""


class QuantisedLinear(nn.Linear):
    """y = W_q x + bias with W_q = dequantise(quantise(W)), frozen.

    Held are ``codes`` and ``scales``, whose rows are the units of ``side``, on which pruning cuts. W_q exists while a
    product runs, forward and backward; autograd keeps neither it nor x. ``weight`` dequantises at every access.
    Computes in the type of x, under autocast in that of autocast.
    """

    codes: torch.Tensor
    scales: torch.Tensor

    def __init__(self, module: nn.Module, side: Side, format: str) -> None:
        nn.Module.__init__(self)  # a Linear's own would make a weight
        self.side = side
        self.format = format
        self.was_transposed = is_transposed(module)
        self.out_features, self.in_features = shape_of(module)
        codes, scales = FORMATS[format].pack(self._by_unit(weight_of(module).detach().float()))
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)
        self.register_parameter("bias", bias_of(module))  # type: ignore[arg-type]  # as the module has it
        self.train(module.training)

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        """W_q [out, in] in the type of the base, float32, new memory."""
        return self.dequantised(self.scales.dtype)

    @property
    def row_bytes(self) -> int:
        """Bytes that a unit of ``side`` is held in."""
        return FORMATS[self.format].row_bytes(self._width)

    def dequantised(self, dtype: torch.dtype) -> torch.Tensor:
        """W_q [out, in] in ``dtype``, new memory."""
        whole = FORMATS[self.format].unpack(self.codes, self.scales, self._width)
        return self._by_unit(whole.to(dtype))

    def keep(self, side: str, kept: torch.Tensor) -> None:
        """Keep the units ``kept`` of ``side``, in place, exactly. The buffers are replaced, not written to."""
        if side != self.side:
            raise ValueError(f"a weight that is quantised by its {self.side}puts cannot be cut by its {side}puts")
        self.codes, self.scales = self.codes.index_select(0, kept), self.scales.index_select(0, kept)
        if side == "in":
            self.in_features = len(kept)
            return
        self.out_features = len(kept)
        if self.bias is not None:
            self.bias = nn.Parameter(self.bias.index_select(0, kept), requires_grad=False)

    def plain(self) -> nn.Module:
        """A module of the class that it was made of, with W_q as its weight."""
        with torch.device("meta"):  # nothing is drawn at random
            module: nn.Module = Conv1D(1, 1) if self.was_transposed else nn.Linear(1, 1, bias=False)
        set_weight(module, self.weight)
        module.bias = self.bias
        return module.train(self.training)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out]."""
        kind = input.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else input.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        return frozen_product(input.to(dtype), weight_source(self, dtype), bias)

    @property
    def _width(self) -> int:
        return self.in_features if self.side == "out" else self.out_features

    def _by_unit(self, matrix: torch.Tensor) -> torch.Tensor:
        """A view of [out, in] with the units as rows, or the reverse."""
        return matrix if self.side == "out" else matrix.T


def weight_source(module: nn.Module, dtype: torch.dtype) -> Source:
    """The frozen weight of a linear ``module`` in ``dtype``: a quantised one anew at every call, others kept."""
    if isinstance(module, QuantisedLinear):
        return partial(module.dequantised, dtype)
    weight = weight_of(module).to(dtype)
    return lambda: weight


def frozen_product(x: torch.Tensor, weight: Source, bias: torch.Tensor | None) -> torch.Tensor:
    """W x + bias with W and bias frozen: [..., in] -> [..., out]. Calls ``weight`` again in the backward pass."""
    if torch.is_grad_enabled() and x.requires_grad:
        return _FrozenProduct.apply(x, weight, bias)
    return linear(x, weight(), bias)


class _FrozenProduct(torch.autograd.Function):
    """The product, and the gradient of x alone; nothing is kept but the source of the weight."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: Source, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.weight = weight
        return linear(x, weight(), bias)

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return slopes[0] @ ctx.weight(), None, None
