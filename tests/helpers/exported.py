"""Small models of every family, ready to be exported."""

from pathlib import Path

import numpy as np
import torch
from masking import masked
from small_models import VOCABULARY, build
from small_structures import draw_adapter, draw_structure
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from slimfed.clients.adapters.training.lora import attach
from slimfed.clients.export.manifest import Provenance
from slimfed.clients.export.source import Source, digest
from slimfed.clients.models.discovery import discover
from slimfed.clients.models.loading import LoadedModel
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.clients.spec import AdapterSpec, DataSpec, ModelSpec
from slimfed.clients.structure import Blueprint, Structure

SCALING = 1.5
LABELS = ("no", "yes")


def tokenizer() -> PreTrainedTokenizerFast:
    """Words w0, w1 and so on, one token each; a row is left for what transformers adds to a Qwen2 tokenizer."""
    words = ["<pad>", "<s>", "</s>", *(f"w{i}" for i in range(VOCABULARY - 4))]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def uniform_structure(blueprint: Blueprint, units: int, channels: int, seed: int = 0) -> Structure:
    """Random units, as many in every layer."""
    draw = np.random.default_rng(seed)
    keep = np.zeros(blueprint.units, dtype=bool)
    for index, block in enumerate(blueprint.blocks):
        count = units if block.kind == "attention" else channels
        keep[blueprint.span(index)][draw.permutation(block.units)[:count]] = True
    return Structure(blueprint, keep)


def source(
    family: str,
    causal: bool,
    seed: int = 0,
    structure: Structure | None = None,
    words: PreTrainedTokenizerFast | None = None,
) -> Source:
    """A random base with a random adapter and head, in a random structure with unlike layers.

    ``words``: its tokenizer, for which the base gets as many rows and a few more; default: :func:`tokenizer`.
    """
    model = build(family, causal, seed, VOCABULARY if words is None else len(words) + 7)
    blueprint = discover(model)
    prefix = model.base_model_prefix + "."
    head = () if causal else tuple(name for name, _ in model.named_parameters() if not name.startswith(prefix))
    base = LoadedModel(model, words or tokenizer(), None if causal else LABELS, head, 64)
    draw = np.random.default_rng(seed)
    adapter = draw_adapter(model, blueprint, seed)
    for name in head:
        adapter.head[name] = draw.normal(0, 0.3, model.get_parameter(name).shape).astype(np.float32)
    structure = structure or draw_structure(blueprint, seed)
    return Source(
        base=base,
        spec=ModelSpec(path=f"{family}-base", task="causal-lm" if causal else "classification"),
        structure=structure,
        adapter=adapter,
        adapter_spec=AdapterSpec(scaling=SCALING),
        data=DataSpec(max_length=32),
        prompted=False,
        provenance=Provenance(
            run="20260101-000000-abc",
            name="small",
            method="fedspine",
            subject="global",
            round=3,
            seed=seed,
            sparsity=structure.sparsity,
            created="2026-01-01T00:00:00+00:00",
            versions={"slimfed": "0"},
        ),
        figures={"accuracy": "50.0%"},
        base_digest=digest(base),
    )


def masked_logits(origin: Source, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the dense model with the adapter attached puts out when the removed units are masked."""
    dense = attach(
        slice_model(origin.base.model, origin.structure.blueprint.dense()), origin.adapter, AdapterSpec(scaling=SCALING)
    )
    with torch.no_grad(), masked(dense.model.eval(), origin.structure):
        return dense.model(**batch).logits


def logits(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch).logits


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Agreement to 1e-4 of the logits' size."""
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 * max(1.0, float(expected.abs().max())))


def save_base(origin: Source, folder: Path) -> None:
    """The unpruned base as a folder that a job can name."""
    origin.base.model.save_pretrained(folder)
    origin.base.tokenizer.save_pretrained(folder)
