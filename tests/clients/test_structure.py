"""What discovery finds in every family, and what a structure guarantees."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from masking import masked
from small_models import CONFIGS, DECODERS, KIN, KIN_DECODERS, build, tokens
from small_structures import draw_adapter, draw_structure
from transformers import (
    AlbertConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    Phi3Config,
)

from slimfed.clients.errors import InputError
from slimfed.clients.models.discovery import discover
from slimfed.clients.models.families import FAMILIES
from slimfed.clients.pruning.adapter_slicing import narrow, widen
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.clients.structure import Structure


def test_every_registered_family_is_tried() -> None:
    assert set(FAMILIES) == set(CONFIGS) | set(KIN)


@pytest.mark.parametrize("family", CONFIGS)
def test_names_carry_the_prefix_of_the_model_they_are_in(family: str) -> None:
    backbone = AutoModel.from_config(CONFIGS[family])
    bare = discover(backbone)
    models = [build(family), *([build(family, causal=True)] if family in DECODERS else [])]
    for model in models:
        whole = discover(model)
        prefix = f"{model.base_model_prefix}."
        assert whole.modules == tuple(prefix + name for name in bare.modules)
        assert [block.units for block in whole.blocks] == [block.units for block in bare.blocks]
        assert all(isinstance(model.get_submodule(name), torch.nn.Module) for name in whole.modules)


@pytest.mark.parametrize("family", CONFIGS)
def test_blocks_come_in_forward_order_and_cut_whole_modules(family: str) -> None:
    model = build(family)
    blueprint = discover(model)
    assert [(block.layer, block.kind) for block in blueprint.blocks] == [
        (layer, kind) for layer in range(2) for kind in ("attention", "ffn")
    ]
    dense = blueprint.dense()
    assert dense.sparsity == 0.0
    for (name, side), kept in dense.indices().items():
        weight = model.get_submodule(name).weight
        rows, columns = weight.shape if isinstance(model.get_submodule(name), torch.nn.Linear) else weight.shape[::-1]
        assert np.array_equal(np.sort(kept), np.arange(rows if side == "out" else columns))


def test_one_key_for_all_queries_is_one_unit() -> None:
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=1,
        intermediate_size=8,
    )
    model = AutoModelForCausalLM.from_config(config)
    attention = discover(model).blocks[0]
    assert (attention.units, attention.cuts[0].width, attention.cuts[1].width) == (1, 32, 8)


@pytest.mark.parametrize("family", KIN)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 1000))
def test_kin_slice_as_they_mask_and_decoders_generate(family: str, seed: int) -> None:
    causal = family in KIN_DECODERS
    model = build(family, causal, seed)
    structure = draw_structure(discover(model), seed)
    batch = tokens(seed)
    sliced = slice_model(model, structure)
    with torch.no_grad(), masked(model, structure):
        expected = model(**batch).logits
    with torch.no_grad():
        torch.testing.assert_close(sliced(**batch).logits, expected, rtol=1e-4, atol=1e-4)
    if causal:
        options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
        prompt = batch["input_ids"][:1]
        cached = sliced.generate(prompt, use_cache=True, **options)
        assert torch.equal(cached, sliced.generate(prompt, use_cache=False, **options))


_SMALL = {"vocab_size": 50, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 8, "pad_token_id": 0}


@pytest.mark.parametrize(
    ("config", "module"),
    [
        (
            AlbertConfig(vocab_size=50, embedding_size=8, hidden_size=16, num_attention_heads=2, intermediate_size=8),
            None,
        ),
        (Phi3Config(**_SMALL, num_hidden_layers=1), "self_attn.qkv_proj"),
    ],
    ids=["albert", "phi3"],
)
def test_a_family_that_cannot_be_pruned_is_refused_with_the_module(config, module: str | None) -> None:
    model = AutoModelForSequenceClassification.from_config(config)
    with pytest.raises(InputError, match=module or "encoder.albert_layer_groups"):
        discover(model)


@pytest.mark.parametrize("family", CONFIGS)
def test_a_dense_structure_shares_every_tensor(family: str) -> None:
    model = build(family)
    copy = slice_model(model, discover(model).dense())
    assert copy is not model
    pairs = zip([*model.parameters(), *model.buffers()], [*copy.parameters(), *copy.buffers()], strict=True)
    assert all(mine is yours for mine, yours in pairs)
    with torch.no_grad():
        assert torch.equal(model(**tokens()).logits, copy(**tokens()).logits)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_widening_undoes_narrowing(family: str) -> None:
    model = build(family)
    blueprint = discover(model)
    adapter, structure = draw_adapter(model, blueprint, 1), draw_structure(blueprint, 2)
    small = narrow(adapter, blueprint.dense(), structure)
    back = widen(small, structure)
    again = narrow(back, blueprint.dense(), structure)
    for name, factors in adapter.factors.items():
        np.testing.assert_array_equal(again.factors[name].a, small.factors[name].a)
        np.testing.assert_array_equal(again.factors[name].b, small.factors[name].b)
        for whole, original in ((back.factors[name].a, factors.a), (back.factors[name].b, factors.b)):
            assert whole.shape == original.shape
            assert ((whole == original) | (whole == 0)).all()


def test_narrowing_to_what_has_gone_is_refused() -> None:
    model = build("bert")
    blueprint = discover(model)
    small = draw_structure(blueprint, 2)
    adapter = narrow(draw_adapter(model, blueprint, 1), blueprint.dense(), small)
    with pytest.raises(ValueError, match="within its own"):
        narrow(adapter, small, blueprint.dense())


@given(st.integers(0, 1000))
def test_a_structure_survives_packing(seed: int) -> None:
    blueprint = discover(_BERT)
    structure = draw_structure(blueprint, seed)
    bits = structure.pack()
    assert Structure.unpack(blueprint, bits) == structure
    with pytest.raises(ValueError, match="does not fit"):
        Structure.unpack(blueprint, bits[:-1])


def test_a_structure_keeps_a_unit_of_every_block() -> None:
    blueprint = discover(_BERT)
    keep = np.ones(blueprint.units, dtype=bool)
    keep[blueprint.span(1)] = False
    with pytest.raises(ValueError, match=r"keeps no unit of bert\.encoder\.layer\.0\.ffn"):
        Structure(blueprint, keep)


def test_query_heads_that_do_not_fill_their_groups_are_refused() -> None:
    model = build("llama")
    model.model.layers[1].self_attn.q_proj = torch.nn.Linear(48, 40)
    with pytest.raises(InputError, match=r"model\.layers\.1\.self_attn\.q_proj .*\[out 40, in 48\].*multiple of 24"):
        discover(model)


def test_a_missing_or_other_module_is_named() -> None:
    model = build("llama")
    model.model.layers[1].mlp.up_proj = torch.nn.Embedding(3, 3)
    with pytest.raises(InputError, match=r"model\.layers\.1\.mlp\.up_proj is a Embedding"):
        discover(model)
    del model.model.layers[1].mlp.up_proj
    with pytest.raises(InputError, match=r"LlamaForSequenceClassification has no .*\.layers\.1\.mlp\.up_proj"):
        discover(model)


_BERT = build("bert")
