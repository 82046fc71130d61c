"""A folded adapter computes what the attached one does, and leaves the base alone."""

import numpy as np
import pytest
import torch
from small_models import CONFIGS
from training import adapter, narrowed, opened, structure

from slimfed.clients.adapters.training.lora import attach
from slimfed.clients.adapters.training.merging import fold
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.clients.spec import AdapterSpec


@pytest.mark.parametrize("family", CONFIGS)
def test_folding_is_attaching_and_merging(family: str) -> None:
    base, blueprint = opened(family, False)
    before = {name: parameter.clone() for name, parameter in base.model.named_parameters()}
    kept = structure(blueprint, 1, 0.4)
    own = narrowed(adapter(base, blueprint, 3, 4), kept, 4)
    attached = attach(slice_model(base.model, kept), own, AdapterSpec(scaling=1.5)).model.eval()
    folded = fold(slice_model(base.model, kept), own, 1.5).eval()
    ids = torch.arange(3, 15).reshape(2, 6)
    with torch.no_grad():
        expected, got = (m(input_ids=ids, attention_mask=torch.ones_like(ids)).logits for m in (attached, folded))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    for name, parameter in base.model.named_parameters():
        torch.testing.assert_close(parameter, before[name], rtol=0, atol=0)


def test_an_adapter_of_another_shape_is_refused() -> None:
    base, blueprint = opened("bert", False)
    kept = structure(blueprint, 1, 0.4)
    whole = adapter(base, blueprint, 3, 4)
    with pytest.raises(ValueError, match="does not fit the model's"):
        fold(slice_model(base.model, kept), whole, 1.0)
    assert any(np.any(f.b) for f in whole.factors.values())
