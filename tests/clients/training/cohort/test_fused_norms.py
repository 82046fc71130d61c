"""Norms as one operation: same logits and gradients, for every decoder whose norms can be."""

import pytest
import torch
from small_models import DECODERS, build, tokens
from torch import nn

from slimfed.clients.training.cohort.fused_norms import fuse_norms

PLAIN = ("llama", "mistral", "qwen2", "qwen3")


def answers(family: str, fused: bool) -> list[torch.Tensor]:
    """Logits and the gradients of all weights."""
    model = build(family, causal=True).double().requires_grad_(True)
    before = dict(model.named_parameters())
    if fused:
        fuse_norms(model)
    assert {name: id(p) for name, p in model.named_parameters()} == {name: id(p) for name, p in before.items()}
    assert any(isinstance(module, nn.RMSNorm) for module in model.modules()) == (fused and family in PLAIN)
    logits = model(**tokens()).logits
    return [logits, *torch.autograd.grad(logits.square().sum(), list(model.parameters()))]


@pytest.mark.parametrize("family", DECODERS)
def test_nothing_changes_but_the_time(family: str) -> None:
    for plain, fused in zip(answers(family, False), answers(family, True), strict=True):
        # transformers' norms round to float32 on their way
        torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-4)
