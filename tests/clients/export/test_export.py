"""An exported folder is the model that was trained, opens anywhere, and is refused by name when it is not whole."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from exported import LABELS, close, logits, masked_logits, source, uniform_structure
from safetensors.torch import load_file, save_file
from small_models import CONFIGS, DECODERS, build, tokens
from small_structures import CASES
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from slimfed.clients.errors import InputError
from slimfed.clients.export import load_slim
from slimfed.clients.export.formats.registry import FORMATS
from slimfed.clients.export.manifest import NAME
from slimfed.clients.models.discovery import discover
from slimfed.clients.models.loading import load_model
from slimfed.clients.spec import ModelSpec

LLAMA_LIKE = ("llama", "mistral", "qwen2", "qwen3", "gemma")


@pytest.mark.parametrize(("family", "causal"), CASES)
def test_masked_sliced_exported_and_reloaded_agree(family: str, causal: bool, tmp_path: Path) -> None:
    origin, batch = source(family, causal), tokens(4)
    expected = masked_logits(origin, batch)
    FORMATS["safetensors"].write(origin, tmp_path / "out")
    reloaded = load_slim(tmp_path / "out")
    close(logits(origin.model(), batch), expected)
    close(logits(reloaded.model, batch), expected)
    assert reloaded.manifest.structure(discover(origin.base.model)) == origin.structure
    assert reloaded.manifest.labels == origin.base.labels
    assert not reloaded.model.training


@pytest.mark.parametrize("family", LLAMA_LIKE)
@pytest.mark.parametrize("causal", [False, True])
def test_a_uniform_llama_opens_with_plain_transformers(family: str, causal: bool, tmp_path: Path) -> None:
    blueprint = discover(build(family, causal))
    origin, batch = source(family, causal, structure=uniform_structure(blueprint, 2, 24)), tokens(4)
    assert FORMATS["safetensors"].write(origin, tmp_path / "out").stock
    auto = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
    close(logits(auto.from_pretrained(tmp_path / "out"), batch), masked_logits(origin, batch))
    close(logits(load_slim(tmp_path / "out").model, batch), masked_logits(origin, batch))


@pytest.mark.parametrize("family", [name for name in CONFIGS if name not in LLAMA_LIKE])
def test_others_open_with_plain_transformers_if_all_heads_are_there(family: str, tmp_path: Path) -> None:
    blueprint = discover(build(family))
    heads = blueprint.blocks[0].units
    origin, batch = source(family, False, structure=uniform_structure(blueprint, heads, 24)), tokens(4)
    assert FORMATS["safetensors"].write(origin, tmp_path / "out").stock
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    close(logits(opened, batch), masked_logits(origin, batch))
    fewer = source(family, False, structure=uniform_structure(blueprint, heads - 1, 24))
    assert not FORMATS["safetensors"].write(fewer, tmp_path / "fewer").stock
    with pytest.raises(RuntimeError, match="mismatch"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "fewer")


@pytest.mark.parametrize("name", ["builtin:tiny-encoder", "builtin:tiny-decoder"])
def test_the_tokenizer_comes_along(name: str, tmp_path: Path) -> None:
    origin = source("bert", False)
    task = "causal-lm" if "decoder" in name else "classification"
    tokenizer = load_model(ModelSpec(path=name, task=task), LABELS, 1).tokenizer
    FORMATS["safetensors"].write(replace(origin, base=replace(origin.base, tokenizer=tokenizer)), tmp_path / "out")
    text = ["turn the light on, please", "no"]
    assert load_slim(tmp_path / "out").tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"]


@pytest.mark.parametrize("family", DECODERS)
def test_a_reloaded_decoder_generates_with_its_cache(family: str, tmp_path: Path) -> None:
    FORMATS["safetensors"].write(source(family, True), tmp_path / "out")
    model = load_slim(tmp_path / "out").model
    options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    prompt = tokens(1)["input_ids"][:1]
    assert torch.equal(
        model.generate(prompt, use_cache=True, **options), model.generate(prompt, use_cache=False, **options)
    )


def _tensors(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    """Change the weights and enter the new file into the manifest, as a careless hand would."""

    def spoil(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        document = json.loads((folder / NAME).read_text())
        del document["files"]["model.safetensors"]
        (folder / NAME).write_text(json.dumps(document))

    return spoil


def _manifest(**values: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        document = json.loads((folder / NAME).read_text())
        (folder / NAME).write_text(json.dumps(document | values))

    return spoil


def _append(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes() + b" ")

    return spoil


SPOILT = {
    "no manifest": (lambda folder: (folder / NAME).unlink(), r"has no slimfed\.json"),
    "manifest no json": (lambda folder: (folder / NAME).write_text("{"), r"slimfed\.json' is no JSON"),
    "manifest of the future": (_manifest(format=2), "format 2; valid: 1; upgrade"),
    "manifest without a field": (_manifest(base={}), "base.path: Field required"),
    "kept of no block": (_manifest(kept={}), "kept rows of bert.encoder.layer.0.attention.self.query do not fit"),
    "file outside": (_manifest(files={"../x": {"bytes": 1, "sha256": ""}}), "outside the folder"),
    "weights changed": (_append("model.safetensors"), r"model\.safetensors is not what was exported"),
    "tokenizer changed": (_append("tokenizer.json"), r"tokenizer\.json is not what was exported"),
    "weights gone": (lambda folder: (folder / "model.safetensors").unlink(), r"model\.safetensors is missing"),
    "tensor missing": (_tensors(lambda t: t.pop("classifier.bias")), r"tensor classifier\.bias is missing"),
    "tensor unknown": (_tensors(lambda t: t.update(extra=torch.ones(1))), "tensor extra does not belong"),
    "tensor of another shape": (
        _tensors(lambda t: t.update({"classifier.bias": torch.ones(5)})),
        r"tensor classifier\.bias has shape \[5\], the kept structure wants \[2\]",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_folder_that_is_not_whole_is_refused_by_name(name: str, tmp_path: Path) -> None:
    spoil, words = SPOILT[name]
    FORMATS["safetensors"].write(source("bert", False), tmp_path / "out")
    spoil(tmp_path / "out")
    with pytest.raises(InputError, match=words):
        load_slim(tmp_path / "out")


def test_the_model_card_may_be_edited(tmp_path: Path) -> None:
    FORMATS["safetensors"].write(source("bert", False), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "bert-base" in card
    assert "50.0%" in card
    (tmp_path / "out" / "README.md").write_text("mine")
    load_slim(tmp_path / "out")


def test_nothing_is_overwritten_and_nothing_left_half_written(tmp_path: Path) -> None:
    origin = source("bert", False)
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="exists already"):
        FORMATS["safetensors"].write(origin, tmp_path / "out")
    del origin.adapter.factors[origin.structure.blueprint.modules[0]]
    origin.adapter.head["classifier.bias"] = origin.adapter.head["classifier.bias"][:1]
    with pytest.raises(ValueError, match=r"classifier\.bias"):
        FORMATS["safetensors"].write(origin, tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
