"""A quantised linear computes with W_q, keeps no dequantised weight, and is cut exactly."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from slimfed.clients.models.linear import bias_of, is_linear, place_of, shape_of, weight_of
from slimfed.clients.models.quantised_linear import QuantisedLinear
from slimfed.clients.training.memory import counted_memory

CASES = [(form, side) for form in ("int8", "nf4") for side in ("out", "in")]


def linear(rows: int = 24, columns: int = 70, transposed: bool = False, bias: bool = True) -> nn.Module:
    torch.manual_seed(1)
    module = Conv1D(rows, columns) if transposed else nn.Linear(columns, rows, bias=bias)
    for parameter in module.parameters():
        parameter.data.normal_()
    return module.requires_grad_(False)


@pytest.mark.parametrize(("form", "side"), CASES)
@pytest.mark.parametrize("transposed", [False, True])
def test_it_is_a_linear_with_rounded_weights(form: str, side: str, transposed: bool) -> None:
    source = linear(transposed=transposed)
    module = QuantisedLinear(source, side, form)
    weight = weight_of(module)
    assert is_linear(module)
    assert (shape_of(module), place_of(module)) == ((24, 70), (torch.device("cpu"), torch.float32))
    assert 0 < (weight - weight_of(source)).abs().max() < 0.6
    held = sum(t.numel() * t.element_size() for t in (module.codes, module.scales))
    assert held == module.row_bytes * (24 if side == "out" else 70)
    x = torch.randn(2, 5, 70, requires_grad=True)
    torch.testing.assert_close(module(x), x @ weight.T + bias_of(source))
    slope = torch.randn(2, 5, 24)
    (found,) = torch.autograd.grad(module(x), x, slope)
    torch.testing.assert_close(found, slope @ weight)
    state = torch.get_rng_state()
    plain = module.plain()
    assert torch.equal(torch.get_rng_state(), state)
    assert type(plain) is type(source)
    assert torch.equal(weight_of(plain), weight)
    torch.testing.assert_close(plain(x), module(x))


@pytest.mark.parametrize(("form", "side"), CASES)
def test_cutting_is_that_of_the_rounded_weights(form: str, side: str) -> None:
    module = QuantisedLinear(linear(), side, form)
    whole, kept = module.weight, torch.tensor([0, 3, 4, 17])
    module.keep(side, kept)
    expected = whole[kept] if side == "out" else whole[:, kept]
    assert torch.equal(module.weight, expected)
    assert shape_of(module) == tuple(expected.shape)
    assert len(module.codes) == len(module.scales) == 4, "what is cut takes no memory"
    with pytest.raises(ValueError, match="cannot be cut"):
        module.keep("in" if side == "out" else "out", kept)


@pytest.mark.parametrize("form", ["int8", "nf4"])
def test_under_autocast_it_computes_as_a_linear_does(form: str) -> None:
    module = QuantisedLinear(linear(), "out", form)
    x = torch.randn(3, 70, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = module(x), module.plain()(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected)
    slopes = [torch.autograd.grad(y.float().sum(), x)[0] for y in (found, expected)]
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("form", ["int8", "nf4"])
def test_no_dequantised_weight_outlives_its_product(form: str) -> None:
    """Ten modules take the memory of one dequantised weight, forward and backward, and autograd keeps none."""
    width, kept = 256, []
    modules = nn.Sequential(*(QuantisedLinear(linear(width, width, bias=False), "out", form) for _ in range(10)))
    x = torch.randn(1, width, requires_grad=True)
    modules(x).sum().backward()  # the table of levels is made
    with (
        counted_memory() as memory,
        torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t),
    ):
        modules(x).sum().backward()
    assert not any(size >= width * width for size in kept)
    assert memory.peak < 2 * 4 * width * width
