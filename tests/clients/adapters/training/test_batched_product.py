"""The cohort's product against the plain formula, values and gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfed.clients.adapters.training.batched_product import AdaptedProduct

small = st.integers(1, 5)


@settings(max_examples=30, deadline=None)
@given(devices=small, rows=small, width=small, out=small, rank=small, has_bias=st.booleans())
def test_it_is_what_its_formula_says(devices: int, rows: int, width: int, out: int, rank: int, has_bias: bool) -> None:
    draw = torch.Generator().manual_seed(devices * rows + width * out + rank)
    shapes = ((devices, rows, width), (out, width), (out,), (devices, rank, width), (devices, out, rank))
    x, weight, bias, a, b = (torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes)
    trained = [tensor.requires_grad_() for tensor in (x, a, b)]
    y = AdaptedProduct.apply(x, lambda: weight, bias if has_bias else None, a, b)
    plain = x @ weight.T + x @ a.mT @ b.mT + (bias if has_bias else 0.0)
    torch.testing.assert_close(y, plain)
    slope = torch.randn(y.shape, generator=draw, dtype=torch.float64)
    found, expected = (torch.autograd.grad(value, trained, slope) for value in (y, plain))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("frozen", [True, False])
def test_an_input_that_needs_no_gradient_gets_none(frozen: bool) -> None:
    x = torch.ones(1, 2, 3, requires_grad=not frozen)
    a, b = torch.ones(1, 2, 3, requires_grad=True), torch.ones(1, 4, 2, requires_grad=True)
    AdaptedProduct.apply(x, lambda: torch.ones(4, 3), None, a, b).sum().backward()
    assert (x.grad is None) == frozen
    assert a.grad is not None
    assert b.grad is not None
