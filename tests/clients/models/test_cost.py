"""Counted work is what PyTorch counts, and kept activations are what autograd keeps."""

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from small_models import CONFIGS, DECODERS, VOCABULARY, build
from small_structures import CASES, draw_adapter, draw_structure
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, Gemma3TextConfig, PreTrainedModel

from slimfed.clients.adapters.training.adapted import AdaptedModel
from slimfed.clients.adapters.training.lora import attach
from slimfed.clients.models.cost import inference_flops, low_rank_load, training_workload
from slimfed.clients.models.dimensions import measure
from slimfed.clients.models.discovery import discover
from slimfed.clients.models.quantised_base import quantise_base, quantised_linears
from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.clients.spec import AdapterSpec
from slimfed.clients.structure import Structure
from slimfed.clients.training.checkpointing import recompute_layers

RANK, BATCH, LENGTH = 4, 4, 24


def structures(model: PreTrainedModel) -> Iterator[Structure]:
    blueprint = discover(model)
    yield blueprint.dense()
    yield draw_structure(blueprint, 5)


def adapted_in(model: PreTrainedModel, structure: Structure) -> AdaptedModel:
    """The sliced model with an adapter and, if it classifies, a trained head."""
    dense = structure.blueprint.dense()
    adapter = narrow(draw_adapter(model, structure.blueprint, 1, RANK), dense, structure)
    adapted = attach(slice_model(model, structure), adapter, AdapterSpec())
    backbone = model.base_model_prefix + "."
    for name, parameter in adapted.model.named_parameters():
        if not name.startswith(backbone) and model.get_output_embeddings() is None:
            parameter.requires_grad_(True)
    return adapted


def batch(causal: bool) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, VOCABULARY, (BATCH, LENGTH), generator=torch.Generator().manual_seed(0))
    labels = ids if causal else torch.zeros(BATCH, dtype=torch.long)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def remembering(own: set[int], kept: dict[int, torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """What autograd keeps goes into ``kept``, by where it lies, unless it is one of the model's ``own``."""

    def remember(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    return remember


@pytest.mark.parametrize(("family", "causal"), CASES)
def test_operations_are_what_pytorch_counts(family: str, causal: bool) -> None:
    model = copy.deepcopy(build(family, causal))  # models of a family share their config
    model.set_attn_implementation("eager")  # written out, so that it can be counted
    for structure in structures(model):
        size = measure(model, structure.blueprint, structure)
        with FlopCounterMode(display=False) as forward, torch.no_grad():
            slice_model(model, structure)(**batch(causal))
        assert inference_flops(size, BATCH, LENGTH) == pytest.approx(forward.get_total_flops(), rel=0.02)
        adapted = adapted_in(model, structure)
        with FlopCounterMode(display=False) as training:
            adapted.model(**batch(causal)).loss.backward()
        # The first layer's projections pass no gradient on to the embeddings, of two layers here.
        first = {cut.module for cut in structure.blueprint.blocks[0].cuts if cut.side == "out"}
        unused = sum(2 * adapted.layers[name].weight.numel() * BATCH * LENGTH for name in first)
        counted = training_workload(size, low_rank_load(size, RANK), 1, BATCH, LENGTH).flops
        assert counted - unused == pytest.approx(training.get_total_flops(), rel=0.03)


@pytest.mark.parametrize(("family", "causal"), CASES)
def test_kept_activations_are_what_autograd_keeps(family: str, causal: bool) -> None:
    model = build(family, causal)
    for structure in structures(model):
        adapted = adapted_in(model, structure)
        own = {t.untyped_storage().data_ptr() for t in [*adapted.model.parameters(), *adapted.model.buffers()]}
        kept: dict[int, torch.Tensor] = {}
        with torch.autograd.graph.saved_tensors_hooks(remembering(own, kept), lambda tensor: tensor):
            loss = adapted.model(**batch(causal)).loss
        size = measure(model, structure.blueprint, structure)
        counted = 4 * BATCH * LENGTH * (size.activations + RANK * size.adapted_modules + size.logits)
        assert counted == pytest.approx(sum(t.untyped_storage().nbytes() for t in kept.values()), rel=0.15)
        assert loss.requires_grad


@pytest.mark.parametrize(("family", "causal"), CASES)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_checkpointing_computes_layers_again_and_keeps_their_inputs(family: str, causal: bool, attention: str) -> None:
    """Operations are counted where attention is written out, kept numbers where its scores are not kept."""
    model = copy.deepcopy(build(family, causal))
    model.set_attn_implementation(attention)
    structure = draw_structure(discover(model), 5)
    size = measure(model, structure.blueprint, structure)
    load = low_rank_load(size, RANK)
    counts, kept = [], []
    for again in (False, True):
        adapted = adapted_in(model, structure)
        adapted.model.train()
        if again:
            recompute_layers(adapted.model)
        own = {t.untyped_storage().data_ptr() for t in [*adapted.model.parameters(), *adapted.model.buffers()]}
        seen: dict[int, torch.Tensor] = {}
        with FlopCounterMode(display=False) as counter:
            with torch.autograd.graph.saved_tensors_hooks(remembering(own, seen), lambda tensor: tensor):
                loss = adapted.model(**batch(causal)).loss
            loss.backward()
        counts.append(counter.get_total_flops())
        kept.append(sum(tensor.untyped_storage().nbytes() for tensor in seen.values()))
    plain, again = (training_workload(size, load, 1, BATCH, LENGTH, kind) for kind in (False, True))
    assert again.peak_memory_bytes < plain.peak_memory_bytes
    if attention == "eager":
        assert again.flops - plain.flops == pytest.approx(counts[1] - counts[0], rel=0.05)
    else:
        spared = size.activations + load.activations - size.layer_inputs
        assert kept[0] - kept[1] == pytest.approx(4 * BATCH * LENGTH * spared, rel=0.15)


@pytest.mark.parametrize("family", CONFIGS)
def test_parameters_are_those_of_the_sliced_model(family: str) -> None:
    model = build(family, causal=family in DECODERS)
    for structure in structures(model):
        sliced = slice_model(model, structure)
        assert measure(model, structure.blueprint, structure).parameters == sum(p.numel() for p in sliced.parameters())


def test_less_structure_rank_or_text_costs_less() -> None:
    model = build("bert")
    dense, sliced = (measure(model, s.blueprint, s) for s in structures(model))
    full = training_workload(dense, low_rank_load(dense, RANK), 1, BATCH, LENGTH)
    cheaper = [
        training_workload(sliced, low_rank_load(sliced, RANK), 1, BATCH, LENGTH),
        training_workload(dense, low_rank_load(dense, RANK - 1), 1, BATCH, LENGTH),
        training_workload(dense, low_rank_load(dense, RANK), 1, BATCH - 1, LENGTH),
        training_workload(dense, low_rank_load(dense, RANK), 1, BATCH, LENGTH - 1),
    ]
    for part in cheaper:
        assert part.flops < full.flops
        assert part.traffic_bytes < full.traffic_bytes
        assert part.peak_memory_bytes < full.peak_memory_bytes
    thrice = training_workload(dense, low_rank_load(dense, RANK), 3, BATCH, LENGTH)
    assert thrice.flops == pytest.approx(3 * full.flops)
    assert thrice.traffic_bytes == pytest.approx(3 * full.traffic_bytes)
    assert thrice.peak_memory_bytes == full.peak_memory_bytes


def test_memory_of_a_model_that_was_measured_on_a_jetson_nano() -> None:
    """EdgeFlowerTune: 589 to 731 MB for LoRA on Gemma-3-270M at batch 8, length 64, by a runtime of its own in C++.

    Held against what any runtime must have: bf16 weights, kept activations and the adapter. Python and the logits of
    all positions (which theirs may not compute) come on top here.
    """
    config = Gemma3TextConfig(
        vocab_size=262144,
        hidden_size=640,
        intermediate_size=2048,
        num_hidden_layers=18,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=256,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    blueprint = discover(model)
    size = measure(model, blueprint, blueprint.dense())
    assert size.parameters == pytest.approx(268e6, rel=0.01)
    peak = training_workload(size, low_rank_load(size, 8), 1, 8, 64).peak_memory_bytes
    runtime_and_logits = 300e6 + 3 * 2 * 8 * 64 * size.logits
    assert 589e6 < peak - runtime_and_logits < 1.2 * 731e6


@pytest.mark.parametrize("form", ["int8", "nf4"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_quantised_base_is_counted(form: str, checkpointing: bool) -> None:
    """Memory: codes and scales, and one dequantised weight; traffic and operations: dequantising in each pass."""
    model, quantised = build("bert"), build("bert")
    quantise_base(quantised, form)
    held = sum(t.numel() * t.element_size() for _, m in quantised_linears(quantised) for t in (m.codes, m.scales))
    passes = 3 if checkpointing else 2
    for structure in structures(model):
        plain, small = (measure(each, structure.blueprint, structure) for each in (model, quantised))
        works = [
            training_workload(size, low_rank_load(size, RANK), 1, BATCH, LENGTH, checkpointing)
            for size in (plain, small)
        ]
        weights = plain.adapted_weights
        if structure.keep.all():
            assert small.quantised_bytes == held
        assert plain.held_bytes == plain.parameters * 4
        assert small.held_bytes == plain.held_bytes - 4 * weights + small.quantised_bytes
        saved = works[0].peak_memory_bytes - works[1].peak_memory_bytes
        assert saved == 4 * weights - small.quantised_bytes - 4 * small.largest_quantised
        assert works[1].flops - works[0].flops == passes * weights
        assert works[1].traffic_bytes - works[0].traffic_bytes == passes * (small.quantised_bytes + 4 * weights)
