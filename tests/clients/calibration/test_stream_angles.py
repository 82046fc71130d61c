"""Angles of the residual stream: their sums add up, padding does not count, and they are right for every family."""

import numpy as np
import pytest
import torch
from small_models import CONFIGS, DECODERS, KIN, KIN_DECODERS, build
from training import opened, split
from transformers import OPTConfig, OPTForCausalLM

from slimfed.clients.calibration.stream_angles import stream_angles
from slimfed.clients.data.batching import TokenisedSplit
from slimfed.clients.models.discovery import discover
from slimfed.clients.models.families import FAMILIES

FAMILIES_TRIED = [*CONFIGS, *KIN]


def _causal(family: str) -> bool:
    return family in (*DECODERS, *KIN_DECODERS)


def _batches(text: TokenisedSplit, size: int, rows: range) -> list[dict[str, torch.Tensor]]:
    return [text.collate(np.arange(rows.stop)[start : min(start + size, rows.stop)]) for start in rows[::size]]


@pytest.mark.parametrize("family", FAMILIES_TRIED)
def test_sums_of_parts_add_up_to_those_of_the_whole_and_padding_does_not_count(family: str) -> None:
    """A part is one device's text; alone, its texts are not padded, together they are."""
    base, blueprint = opened(family, _causal(family))
    # transformers' own attention of Gemma 2 has NaN at padding in float64.
    near = 1e-3 if family == "gemma2" else 1e-9
    model = base.model.float() if family == "gemma2" else base.model
    text = split(_causal(family), 3)
    turned = stream_angles(model, blueprint, _batches(text, 23, range(23)))
    parts = [stream_angles(model, blueprint, [text.collate([row])]) for row in range(23)]
    added = sum(parts[1:], parts[0])
    assert added.tokens == turned.tokens == len(text.tokens)
    np.testing.assert_allclose(added.total, turned.total, rtol=near)
    assert (turned.total > 0).all()
    assert (turned.total < turned.tokens).all()


def test_the_mode_and_the_hooks_of_the_model_are_restored() -> None:
    model = build("bert").train()
    text = split(False, 1)
    stream_angles(model, discover(model), [text.collate([0])])
    assert model.training
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    with pytest.raises(ValueError, match="no batches"):
        stream_angles(model, discover(model), [])


def _angle(h: torch.Tensor, after: torch.Tensor, mask: torch.Tensor) -> float:
    cosine = torch.nn.functional.cosine_similarity(h, after, dim=-1)[mask]
    return float(cosine.clamp(-1, 1).arccos().sum() / np.pi)


@pytest.mark.parametrize("family", ["bert", "llama", "gpt2", "gemma3_text", "modernbert"])
def test_the_angle_of_a_layer_s_blocks_is_between_the_states_around_them(family: str) -> None:
    """Against the states that the model itself gives, and the stream in between written out."""
    base, blueprint = opened(family, _causal(family))
    model, batch = base.model, split(_causal(family), 4).collate(range(5))
    prefix, layers = model.base_model_prefix, FAMILIES[family].layers
    layer = model.get_submodule(f"{prefix}.{layers}.0")
    parts: dict[str, torch.Tensor] = {}
    after_attention = {
        "bert": "attention",
        "llama": "self_attn",
        "gpt2": "attn",
        "gemma3_text": "post_attention_layernorm",
        "modernbert": "attn",
    }[family]

    def keep(_module: torch.nn.Module, _inputs: object, output: object) -> None:
        parts["attention"] = output[0] if isinstance(output, tuple) else output

    hook = layer.get_submodule(after_attention).register_forward_hook(keep)
    with torch.no_grad():
        states = model(**batch, output_hidden_states=True).hidden_states
    hook.remove()
    mask = batch["attention_mask"].bool()
    middle = parts["attention"] if family == "bert" else states[0] + parts["attention"]
    found = stream_angles(model, blueprint, [batch])
    assert found.total[0] == pytest.approx(_angle(states[0], middle, mask), rel=1e-6)
    assert found.total[1] == pytest.approx(_angle(middle, states[1], mask), rel=1e-6)


# The stream of ELECTRA begins without a norm, so that its first norm turns it.
@pytest.mark.parametrize("family", [family for family in FAMILIES_TRIED if family != "electra"])
@pytest.mark.parametrize("kind", ["attention", "ffn"])
def test_a_block_that_writes_nothing_turns_nothing(family: str, kind: str) -> None:
    base, blueprint = opened(family, _causal(family))
    for module in base.model.modules():
        if isinstance(module, torch.nn.LayerNorm):  # a norm behind the sum leaves the direction only without gains
            module.weight.fill_(1.0)
            module.bias.zero_() if module.bias is not None else None
    for block in blueprint.blocks:
        if block.kind == kind:
            writer = base.model.get_submodule(block.cuts[-1].module)
            for parameter in writer.parameters():
                parameter.zero_()
    found = stream_angles(base.model, blueprint, [split(_causal(family), 4).collate([row]) for row in range(5)])
    for block, total in zip(blueprint.blocks, found.total / found.tokens, strict=True):
        assert (total < 1e-3) == (block.kind == kind), block.name


def test_the_opt_whose_norms_follow_the_sums_is_read_behind_them() -> None:
    config = replace_config(do_layer_norm_before=False)
    torch.manual_seed(0)
    model = OPTForCausalLM(config).eval().double()
    found = stream_angles(model, discover(model), [split(True, 4).collate(range(5))])
    layer = model.model.decoder.layers[0]
    seen: list[torch.Tensor] = []
    hook = layer.fc1.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    batch = split(True, 4).collate(range(5))
    with torch.no_grad():
        states = model(**batch, output_hidden_states=True).hidden_states
    hook.remove()
    mask = batch["attention_mask"].bool()
    middle = seen[0].reshape(states[0].shape)
    assert found.total[0] == pytest.approx(_angle(states[0], middle, mask), rel=1e-6)


def replace_config(**changes: object) -> OPTConfig:
    """The small OPT with other settings."""
    return OPTConfig(**{**KIN["opt"].to_dict(), **changes})
