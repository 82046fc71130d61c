"""The allocation "zeroth": slopes of the loss along random directions, with weights put back to the bit."""

import numpy as np
import pytest
import torch
from training import opened, split

from slimfed.clients.allocation import ALLOCATIONS, Probe
from slimfed.clients.allocation.zeroth import STEP
from slimfed.clients.seeds import derive


@pytest.mark.parametrize(("family", "causal"), [("bert", False), ("gpt2", True)])
def test_the_slope_is_that_of_the_gradient_and_no_bit_of_the_model_changes(family: str, causal: bool) -> None:
    base, blueprint = opened(family, causal)
    model, text = base.model, split(causal, 3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kept = dict(model.named_parameters())
    batches = [text.collate(range(6)), text.collate(range(6, 12))]
    probe = Probe(model, blueprint, batches, torch.float32, 11)
    found = ALLOCATIONS["zeroth"].measure(probe)
    assert found[0] == text.lengths[:12].sum()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter is kept[name] for name, parameter in model.named_parameters()), "the very same tensors"
    np.testing.assert_array_equal(found, ALLOCATIONS["zeroth"].measure(probe))
    halves = [ALLOCATIONS["zeroth"].measure(Probe(model, blueprint, [b], torch.float32, 11)) for b in batches]
    assert (halves[0][1:] < found[1:]).all()

    model.requires_grad_(True)
    model(**batches[0]).loss.backward()
    for index, block in enumerate(blueprint.blocks):
        draw = torch.Generator().manual_seed(derive(11, "zeroth", 0, index))
        slope = 0.0
        for name in dict.fromkeys(cut.module for cut in block.cuts):
            weight = model.get_submodule(name).weight
            slope += float((weight.grad * torch.randn(weight.shape, generator=draw)).sum())
        assert halves[0][1 + index] / halves[0][0] == pytest.approx(abs(slope), rel=0.02, abs=20 * STEP), block.name


def test_weights_are_mean_slopes_and_positive() -> None:
    _, blueprint = opened("bert", False)
    measured = np.array([4.0, 8.0, 0.0, 4.0, 2.0])
    weights = ALLOCATIONS["zeroth"].weights(blueprint, measured, 0.5)
    assert weights[[0, 2, 3]] == pytest.approx([2.0, 1.0, 0.5])
    assert 0 < weights[1] < 1e-3
    assert (ALLOCATIONS["zeroth"].weights(blueprint, np.array([1.0, 0, 0, 0, 0]), 0.5) > 0).all()
