"""Linear modules of both kinds look the same: weights are [out, in]."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from slimfed.clients.models.linear import bias_of, is_linear, oriented, set_weight, shape_of, weight_of

OUT, IN = 5, 3


def module(kind: str) -> nn.Module:
    made = nn.Linear(IN, OUT) if kind == "Linear" else Conv1D(OUT, IN)
    nn.init.normal_(made.bias)
    return made


BOTH = pytest.mark.parametrize("kind", ["Linear", "Conv1D"])


@BOTH
def test_the_weight_is_what_the_module_multiplies_by(kind: str) -> None:
    linear, x = module(kind), torch.randn(4, IN)
    assert is_linear(linear)
    assert shape_of(linear) == tuple(weight_of(linear).shape) == (OUT, IN)
    torch.testing.assert_close(linear(x), x @ weight_of(linear).T + bias_of(linear))
    assert weight_of(linear).untyped_storage().data_ptr() == linear.weight.untyped_storage().data_ptr(), "a view"


@BOTH
def test_orienting_is_its_own_inverse(kind: str) -> None:
    linear = module(kind)
    assert torch.equal(oriented(linear, oriented(linear, linear.weight)), linear.weight)
    assert torch.equal(oriented(linear, linear.weight), weight_of(linear))


@BOTH
@pytest.mark.parametrize(("rows", "columns"), [(OUT, IN), (2, IN), (OUT, 2), (2, 2)])
def test_a_weight_of_any_size_is_set_and_who_shares_the_old_one_keeps_it(kind: str, rows: int, columns: int) -> None:
    linear, other = module(kind), module(kind)
    other.weight, old = linear.weight, linear.weight.detach().clone()
    weight, bias, x = torch.randn(rows, columns), torch.randn(rows), torch.randn(4, columns)
    set_weight(linear, weight, bias)
    torch.testing.assert_close(linear(x), x @ weight.T + bias)
    assert shape_of(linear) == (rows, columns)
    assert linear.weight.is_contiguous()
    assert not linear.weight.requires_grad
    assert torch.equal(other.weight, old)
    sizes = (linear.out_features, linear.in_features) if kind == "Linear" else (linear.nf, linear.nx)
    assert sizes == (rows, columns)


@BOTH
def test_the_bias_stays_where_none_is_given(kind: str) -> None:
    linear = module(kind)
    before = bias_of(linear)
    set_weight(linear, torch.zeros(OUT, IN))
    assert bias_of(linear) is before


def test_other_modules_are_not_linear() -> None:
    assert not is_linear(nn.LayerNorm(3))
    assert not is_linear(nn.Embedding(3, 3))
