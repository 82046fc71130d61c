"""An encoder whose last layer is computed for the first token alone: same logits, same gradients."""

import pytest
import torch
from small_models import build, tokens

from slimfed.clients.models.attention import ENCODER_ATTENTION
from slimfed.clients.models.discovery import discover
from slimfed.clients.models.families import ENCODERS
from slimfed.clients.training.cohort.first_token import read_first_token


def answers(family: str, shortened: bool, attention: str, masked: bool = True) -> list[torch.Tensor]:
    """Logits and the gradients of all weights."""
    model = build(family).double().requires_grad_(True)
    model.set_attn_implementation(attention)
    if shortened:
        read_first_token(model, discover(model))
    batch = tokens()
    if not masked:
        del batch["attention_mask"]
    logits = model(**batch).logits
    slopes = torch.autograd.grad(logits.square().sum(), list(model.parameters()), allow_unused=True)
    return [logits, *(torch.zeros(()) if slope is None else slope for slope in slopes)]


def closeness(family: str) -> dict[str, float]:
    """ModernBERT's eager attention computes its softmax in float32, whatever the model's type."""
    return {"rtol": 1e-5, "atol": 1e-6} if family == "modernbert" else {"rtol": 1e-9, "atol": 1e-12}


@pytest.mark.parametrize("attention", ["sdpa", "eager", ENCODER_ATTENTION])
@pytest.mark.parametrize("family", sorted(ENCODERS))
def test_nothing_that_the_head_reads_changes(family: str, attention: str) -> None:
    for whole, short in zip(answers(family, False, "eager"), answers(family, True, attention), strict=True):
        torch.testing.assert_close(short, whole, **closeness(family))


@pytest.mark.parametrize("attention", ["sdpa", "eager", ENCODER_ATTENTION])
@pytest.mark.parametrize("family", sorted(ENCODERS))
def test_nor_without_a_mask(family: str, attention: str) -> None:
    whole, short = answers(family, False, "eager", masked=False), answers(family, True, attention, masked=False)
    torch.testing.assert_close(short, whole, **closeness(family))


def test_the_last_layer_computes_one_token() -> None:
    model = build("bert")
    read_first_token(model, discover(model))
    seen = []
    for layer in model.bert.encoder.layer:
        layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape[1]))
    model(**tokens(length=9))
    assert seen == [9, 1]


def test_a_decoder_stays_as_it_is() -> None:
    model = build("llama", causal=True)
    before = model(**tokens()).logits
    read_first_token(model, discover(model))
    assert torch.equal(model(**tokens()).logits, before)
