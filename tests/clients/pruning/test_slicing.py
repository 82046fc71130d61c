"""A sliced model is the masked model, for every family; so is its adapter."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from masking import masked
from small_models import CONFIGS, DECODERS, build, tokens
from small_structures import CASES, draw_adapter, draw_structure

from slimfed.clients.adapters.training.lora import attach
from slimfed.clients.errors import InputError
from slimfed.clients.models.discovery import discover
from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.clients.spec import AdapterSpec


@pytest.mark.parametrize(("family", "causal"), CASES)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_sliced_equals_masked(family: str, causal: bool, seed: int) -> None:
    model = build(family, causal)
    structure = draw_structure(discover(model), seed)
    batch = tokens(seed)
    with torch.no_grad(), masked(model, structure):
        expected = model(**batch).logits
    with torch.no_grad():
        actual = slice_model(model, structure)(**batch).logits
    # Padded positions of a decoder attend to nothing that counts; they are compared all the same.
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("family", "causal"), CASES)
def test_sliced_adapter_equals_masked_adapter(family: str, causal: bool) -> None:
    model = build(family, causal)
    blueprint = discover(model)
    structure = draw_structure(blueprint, 5)
    adapter = draw_adapter(model, blueprint, 6)
    batch = tokens(7)
    dense = attach(slice_model(model, blueprint.dense()), adapter, AdapterSpec())
    with torch.no_grad(), masked(dense.model, structure):
        expected = dense.model(**batch).logits
    sliced = attach(slice_model(model, structure), narrow(adapter, blueprint.dense(), structure), AdapterSpec())
    with torch.no_grad():
        torch.testing.assert_close(sliced.model(**batch).logits, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("family", CONFIGS)
def test_slicing_is_smaller_by_the_sparsity_and_leaves_the_base_alone(family: str) -> None:
    model = build(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    blueprint = discover(model)
    structure = draw_structure(blueprint, 1)
    sliced = slice_model(model, structure)
    saved = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in sliced.parameters())
    assert saved == blueprint.parameters[~structure.keep].sum()
    assert structure.sparsity == pytest.approx(saved / blueprint.parameters.sum())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    embedding = sliced.get_input_embeddings().weight
    assert embedding.data_ptr() == model.get_input_embeddings().weight.data_ptr(), "uncut weights must be shared"


@pytest.mark.parametrize("family", DECODERS)
def test_a_sliced_decoder_generates_with_its_cache(family: str) -> None:
    model = build(family, causal=True)
    sliced = slice_model(model, draw_structure(discover(model), 3))
    prompt = tokens(1, rows=2)["input_ids"][:1]
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with_cache = sliced.generate(prompt, use_cache=True, **options)
    without = sliced.generate(prompt, use_cache=False, **options)
    assert with_cache.shape == (1, prompt.shape[1] + 6)
    assert torch.equal(with_cache, without)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), rank=st.integers(1, 4))
def test_narrowing_in_two_steps_is_narrowing_once(seed: int, rank: int) -> None:
    model = build("llama", causal=True)
    blueprint = discover(model)
    adapter = draw_adapter(model, blueprint, seed)
    first = draw_structure(blueprint, seed)
    second = draw_structure(blueprint, seed + 1, within=first)
    once = narrow(adapter, blueprint.dense(), second, rank)
    twice = narrow(narrow(adapter, blueprint.dense(), first), first, second, rank)
    for name in adapter.factors:
        np.testing.assert_array_equal(once.factors[name].a, twice.factors[name].a)
        np.testing.assert_array_equal(once.factors[name].b, twice.factors[name].b)


def test_grouped_queries_are_pruned_with_their_keys() -> None:
    blueprint = discover(build("llama"))
    attention = blueprint.blocks[0]
    assert attention.units == 3
    assert {cut.module.rsplit(".", 1)[1]: cut.width for cut in attention.cuts} == {
        "q_proj": 16,
        "k_proj": 8,
        "v_proj": 8,
        "o_proj": 16,
    }


def test_an_unknown_family_is_refused_by_name() -> None:
    from transformers import AutoModelForSequenceClassification, MPNetConfig

    config = MPNetConfig(
        hidden_size=32, num_attention_heads=2, num_hidden_layers=1, intermediate_size=32, vocab_size=50
    )
    model = AutoModelForSequenceClassification.from_config(config)
    with pytest.raises(InputError, match=r"'mpnet'.*first linear module mpnet\..*valid: bert"):
        discover(model)


def test_an_odd_module_is_named() -> None:
    model = build("bert")
    layer = model.bert.encoder.layer[1]
    layer.output.dense = torch.nn.Linear(17, 48)
    with pytest.raises(InputError, match=r"layer\.1\.intermediate\.dense of .*\[out 40, in 48\]; valid: outputs = 17"):
        discover(model)
