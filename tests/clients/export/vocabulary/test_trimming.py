"""A model with fewer tokens: the same logits for those that are left, in every format."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from byte_level import HARD, byte_level
from exported import source, uniform_structure
from llama_cpp import LlamaCpp
from small_models import CONFIGS, DECODERS, KIN, KIN_DECODERS, build
from transformers import AutoModelForCausalLM, AutoTokenizer
from trimming import ids, unigram, used

from slimfed.clients.builtin.commands import commands
from slimfed.clients.data.split import TextSplit
from slimfed.clients.errors import InputError
from slimfed.clients.export.formats.registry import FORMATS
from slimfed.clients.export.manifest import CARD, NAME
from slimfed.clients.export.runtime.opened_model import OpenedModel, open_model
from slimfed.clients.export.source import Source
from slimfed.clients.export.vocabulary.model import fixed_tokens, trimmed_model
from slimfed.clients.export.vocabulary.tokens import kept_tokens
from slimfed.clients.export.vocabulary.trimming import Trimming, used_tokens
from slimfed.clients.models.discovery import discover

TEXTS = [row.text for row in commands()[1][:20]]
OTHERS = [row.text for row in commands()[1][20:40]]


def trimmed_source(family: str, causal: bool = True, kind: str = "llama-bpe", tied: bool | None = None) -> Source:
    """A source whose vocabulary is chosen by ``TEXTS``, and measured on ``OTHERS``."""
    words = unigram() if kind == "unigram" else byte_level(kind)
    structure = None
    if family in ("llama", "mistral", "qwen2", "qwen3"):
        structure = uniform_structure(discover(build(family, causal)), 2, 24)
    origin = source(family, causal, structure=structure, words=words)
    if tied is not None:
        assert bool(origin.base.model.config.tie_word_embeddings) == tied
    kept = kept_tokens(words, used(words, TEXTS), always=fixed_tokens(origin.base.model))
    assert len(kept) < len(words)
    label = None if causal else np.arange(len(OTHERS)) % 2
    judge = TextSplit(OTHERS, label=label)
    return replace(origin, trimming=Trimming(kept, "texts", judge, np.arange(len(OTHERS))))


def rows_of(origin: Source, said: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A text as tokens of the base, and as those that are left."""
    before = ids(origin.base.tokenizer, said)
    place = {int(index): new for new, index in enumerate(origin.trimming.kept)}
    return torch.tensor([before]), torch.tensor([[place[index] for index in before]])


def logits(model: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=rows, attention_mask=torch.ones_like(rows)).logits


@pytest.mark.parametrize("family", [*DECODERS, *KIN_DECODERS])
def test_a_decoder_says_the_same_of_the_tokens_that_are_left(family: str, tmp_path: Path) -> None:
    origin = trimmed_source(family)
    before = origin.base.model.get_input_embeddings().weight.clone()
    whole, slim, kept = origin.model(), origin.slim(), origin.trimming.kept
    FORMATS["safetensors"].write(origin, tmp_path / "out")
    opened = open_model(tmp_path / "out")
    for said in TEXTS[:6]:
        one, two = rows_of(origin, said)
        assert ids(opened.tokenizer, said) == two[0].tolist()
        expected = logits(whole, one)[..., kept]
        for model in (slim.model, opened.model):
            torch.testing.assert_close(logits(model, two), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(origin.base.model.get_input_embeddings().weight, before)
    assert origin.base.model.config.vocab_size == len(before)
    assert opened.model.config.vocab_size == len(kept) == opened.model.get_input_embeddings().num_embeddings
    assert opened.model.config.eos_token_id == opened.tokenizer.eos_token_id


@pytest.mark.parametrize("family", [name for name in CONFIGS | KIN if name not in (*DECODERS, *KIN_DECODERS)])
def test_an_encoder_gives_the_same_labels(family: str, tmp_path: Path) -> None:
    origin = trimmed_source(family, causal=False, kind="unigram")
    FORMATS["safetensors"].write(origin, tmp_path / "out")
    opened, whole = open_model(tmp_path / "out"), origin.model()
    for said in TEXTS[:6]:
        one, two = rows_of(origin, said)
        assert ids(opened.tokenizer, said) == two[0].tolist()
        torch.testing.assert_close(logits(opened.model, two), logits(whole, one), rtol=1e-5, atol=1e-5)
    losses = opened.manifest.vocabulary.losses
    assert losses.bits_per_byte_after is None
    assert losses.accuracy_before is not None


@pytest.mark.parametrize("tie", [False, True], ids=["untied", "tied"])
def test_tied_embeddings_stay_tied(tie: bool) -> None:
    model = build("llama", True)
    model.config.tie_word_embeddings = tie
    model.tie_weights()
    small = trimmed_model(model, np.arange(5, 40))
    assert (small.lm_head.weight is small.model.embed_tokens.weight) == tie
    assert small.lm_head.weight.shape == (35, 48)
    assert small.lm_head.out_features == small.model.embed_tokens.num_embeddings == 35
    assert model.lm_head.weight.shape == (120, 48)


def test_stock_transformers_opens_it(tmp_path: Path) -> None:
    origin = trimmed_source("llama")
    assert FORMATS["safetensors"].write(origin, tmp_path / "out").stock
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    words = AutoTokenizer.from_pretrained(tmp_path / "out")
    rows = torch.tensor([ids(words, TEXTS[0])])
    torch.testing.assert_close(logits(model, rows), logits(origin.slim().model, rows), rtol=1e-5, atol=1e-5)
    assert model.generation_config.eos_token_id == words.eos_token_id


@pytest.mark.parametrize("format", ["onnx", "onnx-int8"])
@pytest.mark.parametrize("family", ["llama", "bert"])
def test_onnx_runtime_runs_it(format: str, family: str, tmp_path: Path) -> None:
    causal = family == "llama"
    origin = trimmed_source(family, causal, "llama-bpe" if causal else "unigram")
    manifest = FORMATS[format].write(origin, tmp_path / "out")
    opened = open_model(tmp_path / "out")
    rows = torch.tensor([ids(opened.tokenizer, TEXTS[0])])
    found, expected = logits(opened.model, rows), logits(origin.slim().model, rows)
    assert found.shape == expected.shape
    if format == "onnx":
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        if causal:
            assert opened.continuations(TEXTS[:2], 6) == in_torch(origin).continuations(TEXTS[:2], 6)
    width, removed = 48, manifest.vocabulary.before - len(manifest.vocabulary.kept)
    matrices = 2 if causal and not origin.base.model.config.tie_word_embeddings else 1
    assert manifest.vocabulary.saved == removed * width * matrices * (4 if format == "onnx" else 1)


def in_torch(origin: Source) -> OpenedModel:
    """The same model as it is in memory, with the ways to call it that an opened folder has."""
    slim = origin.slim()
    return OpenedModel(slim.model, slim.tokenizer, slim.manifest)


@pytest.mark.parametrize(
    ("family", "kind"), [("llama", "llama-bpe"), ("llama", "smollm"), ("mistral", "tekken"), ("qwen3", "qwen2")]
)
def test_llama_cpp_reads_the_same_tokens_and_writes_the_same_text(family: str, kind: str, tmp_path: Path) -> None:
    origin = replace(trimmed_source(family, kind=kind), weights="fp16")
    FORMATS["gguf"].write(origin, tmp_path / "out")
    llama, slim, ours = LlamaCpp(tmp_path / "out" / "model.gguf"), origin.slim(), open_model(tmp_path / "out")
    every = [*TEXTS, *OTHERS, *HARD]
    assert [said for said in every if llama.tokens(said) != ids(slim.tokenizer, said)] == []
    whole, kept = origin.model(), origin.trimming.kept
    for said in TEXTS[:4]:
        one, two = rows_of(origin, said)
        new = llama.goes_on(two[0].tolist(), 12)
        rows = ours.model.generate(two, max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=None)
        assert new == rows[0, two.shape[1] :].tolist()
        expected = logits(whole, one)[0, -1, kept].log_softmax(-1)
        for token, found in llama.next_token(two[0].tolist(), 10).items():
            assert found == pytest.approx(float(expected[token]), abs=0.02)


def test_what_it_loses_is_measured_and_told(tmp_path: Path) -> None:
    origin = trimmed_source("llama")
    vocabulary = FORMATS["safetensors"].write(origin, tmp_path / "out").vocabulary
    losses = vocabulary.losses
    assert vocabulary.before == 600
    assert losses.texts == 20
    words, small = origin.base.tokenizer, open_model(tmp_path / "out").tokenizer
    ended = [len(ids(words, said)) + 1 for said in OTHERS]
    assert losses.tokens_before == pytest.approx(np.mean(ended))
    assert losses.tokens_after > losses.tokens_before
    changed = [ids(small, said) != rows for said in OTHERS for rows in [_left(origin, ids(words, said))]]
    assert losses.changed == pytest.approx(np.mean(changed))
    assert 0 < losses.changed <= 1
    assert losses.bits_per_byte_before > 0
    assert losses.bits_per_byte_after > 0
    card = (tmp_path / "out" / CARD).read_text()
    assert f"| vocabulary | {len(vocabulary.kept)} of the base's 600 tokens, chosen by texts |" in card
    assert "| what that costs, on 20 held-out texts |" in card
    assert FORMATS["safetensors"].write(source("llama", True, words=words), tmp_path / "whole").vocabulary is None


def _left(origin: Source, rows: list[int]) -> list[int | None]:
    place = {int(index): new for new, index in enumerate(origin.trimming.kept)}
    return [place.get(index) for index in rows]


def test_a_text_whose_tokens_stay_costs_nothing() -> None:
    origin = trimmed_source("llama")
    origin = replace(origin, trimming=replace(origin.trimming, judge=TextSplit(TEXTS), rows=np.arange(len(TEXTS))))
    losses = origin.slim().manifest.vocabulary.losses
    assert losses.changed == 0
    assert losses.tokens_after == losses.tokens_before
    # Fewer tokens share the same probability, so that a text is no less likely than before.
    assert losses.bits_per_byte_after <= losses.bits_per_byte_before


def test_questions_with_choices_keep_their_choices_tokens() -> None:
    words = byte_level("gpt-2")
    split = TextSplit(["cat"], prompt=["which animal"], choices=[("cat", "light")], right=[0])
    found = words.convert_ids_to_tokens(used_tokens(words, split).tolist())
    assert set(words.tokenize("light")) <= set(found)


@pytest.mark.parametrize("kept", [[], [3, 2], [5, 5], [0, 607], [-1, 4]], ids=str)
def test_a_manifest_with_tokens_that_the_base_has_not_is_refused(kept: list[int], tmp_path: Path) -> None:
    FORMATS["safetensors"].write(trimmed_source("llama"), tmp_path / "out")
    document = json.loads((tmp_path / "out" / NAME).read_text())
    document["vocabulary"]["kept"] = kept
    (tmp_path / "out" / NAME).write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"vocabulary.kept are not ascending tokens of the base's 607"):
        open_model(tmp_path / "out")
