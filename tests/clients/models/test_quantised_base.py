"""A quantised base of every family: what is quantised, what it is cut to, and what its plain form says."""

import pytest
import torch
from small_models import CONFIGS, DECODERS, KIN, KIN_DECODERS, build, tokens
from training import structure

from slimfed.clients.export.manifest import weights_digest
from slimfed.clients.models.dimensions import measure
from slimfed.clients.models.discovery import discover
from slimfed.clients.models.linear import weight_of
from slimfed.clients.models.loading import load_model
from slimfed.clients.models.quantised_base import dequantise_linears, quantise_base, quantised_linears
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.clients.spec import ModelSpec

FAMILIES = [(family, family in (*DECODERS, *KIN_DECODERS)) for family in (*CONFIGS, *KIN)]


@pytest.mark.parametrize(("family", "causal"), FAMILIES)
def test_slicing_cuts_what_the_whole_base_is_and_keeps_it_quantised(family: str, causal: bool) -> None:
    model = build(family, causal)
    parameters = sum(p.numel() for p in model.parameters())
    quantise_base(model, "nf4")
    blueprint = discover(model)
    assert {name for name, _ in quantised_linears(model)} == set(blueprint.modules)
    for seed, sparsity in ((0, 0.0), (1, 0.5)):
        has = structure(blueprint, seed, sparsity)
        sliced = slice_model(model, has)
        size, small = measure(model, blueprint, has), dict(quantised_linears(sliced))
        held = sum(t.numel() * t.element_size() for m in small.values() for t in (m.codes, m.scales))
        assert (size.quantised_bytes, size.quantised_weights) == (held, size.adapted_weights)
        assert size.largest_quantised == max(m.weight.numel() for m in small.values())
        assert size.parameters == parameters or sparsity > 0
        expected = slice_model(dequantise_linears(slice_model(model, blueprint.dense())), has)
        with torch.no_grad():
            torch.testing.assert_close(sliced(**tokens()).logits, expected(**tokens()).logits, rtol=1e-4, atol=1e-4)
        plain = dequantise_linears(sliced)
        for name in blueprint.modules:
            assert torch.equal(weight_of(plain.get_submodule(name)), weight_of(expected.get_submodule(name)))
            assert type(plain.get_submodule(name)) is type(build(family, causal).get_submodule(name))
    assert set(dict(quantised_linears(model))) == set(blueprint.modules), "slicing leaves the base as it was"


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_the_hash_is_that_of_the_rounded_weights(family: str) -> None:
    model = build(family)
    before = weights_digest(model)
    quantise_base(model, "int8")
    after = weights_digest(model)
    assert after != before
    assert weights_digest(dequantise_linears(model)) == after


@pytest.mark.parametrize("form", ["int8", "nf4"])
def test_a_base_is_quantised_as_it_is_loaded_the_same_each_time(form: str) -> None:
    spec = ModelSpec(path="builtin:tiny-encoder", quantization=form)
    first, second = (load_model(spec, ("no", "yes"), 1) for _ in range(2))
    assert weights_digest(first.model) == weights_digest(second.model)
    plain = load_model(spec.model_copy(update={"quantization": "none"}), ("no", "yes"), 1)
    assert torch.equal(first.model.classifier.weight, plain.model.classifier.weight)
    assert first.head == plain.head
    assert {name for name, _ in quantised_linears(first.model)} == set(discover(plain.model).modules)
