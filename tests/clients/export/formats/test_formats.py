"""Every format holds the model that was trained, for every family; stock readers agree."""

from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from byte_level import byte_level
from exported import SCALING, close, logits, masked_logits, save_base, source, uniform_structure
from peft import PeftModel
from small_models import DECODERS, KIN, KIN_DECODERS, build, tokens
from small_structures import CASES, draw_adapter
from transformers import AutoModelForCausalLM, GenerationConfig

from slimfed.clients.adapters.training.lora import attach
from slimfed.clients.errors import InputError
from slimfed.clients.export.formats.registry import FORMATS
from slimfed.clients.export.runtime.opened_model import open_model
from slimfed.clients.models.discovery import discover
from slimfed.clients.models.loading import load_model
from slimfed.clients.spec import AdapterSpec, ModelSpec

GGUF = ("llama", "mistral", "qwen2", "qwen3")


@pytest.mark.parametrize(("family", "causal"), CASES)
def test_onnx_is_the_trained_model_at_any_batch_and_length(family: str, causal: bool, tmp_path: Path) -> None:
    origin = source(family, causal)
    FORMATS["onnx"].write(origin, tmp_path / "out")
    opened = open_model(tmp_path / "out")
    for batch in (tokens(4), tokens(5, rows=5, length=14), {k: v[:1, :1] for k, v in tokens(6).items()}):
        close(logits(opened.model, batch), masked_logits(origin, batch))


@pytest.mark.parametrize("family", KIN)
def test_kin_are_written_and_opened(family: str, tmp_path: Path) -> None:
    origin = source(family, family in KIN_DECODERS)
    for kind in ("safetensors", "onnx"):
        FORMATS[kind].write(origin, tmp_path / kind)
        batch = tokens(4)
        seen = batch["attention_mask"].bool() if family in KIN_DECODERS else slice(None)  # OPT counts positions by mask
        close(logits(open_model(tmp_path / kind).model, batch)[seen], masked_logits(origin, batch)[seen])


@pytest.mark.parametrize("family", DECODERS)
def test_an_onnx_decoder_goes_on_from_its_cache(family: str, tmp_path: Path) -> None:
    origin = source(family, True)
    FORMATS["onnx"].write(origin, tmp_path / "out")
    opened, model = open_model(tmp_path / "out"), origin.model()
    batch = tokens(1)
    ids, mask = batch["input_ids"].flip(1), batch["attention_mask"].flip(1)  # padded on the left
    for end in (10**6, 7):  # the first ends nothing; None would let transformers take the model's own
        config = GenerationConfig(max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=end)
        expected = model.generate(ids, attention_mask=mask, generation_config=config)
        assert torch.equal(opened.model.generate(ids, attention_mask=mask, generation_config=config), expected)


@pytest.mark.parametrize(("family", "causal"), [("bert", False), ("llama", True), ("gpt2", True)])
def test_int8_is_smaller_and_says_nearly_the_same(family: str, causal: bool, tmp_path: Path) -> None:
    origin = source(family, causal)
    FORMATS["onnx"].write(origin, tmp_path / "full")
    manifest = FORMATS["onnx-int8"].write(origin, tmp_path / "int8")
    assert manifest.quantised == "int8"
    sizes = [(tmp_path / name / "model.onnx").stat().st_size for name in ("int8", "full")]
    assert sizes[0] < sizes[1]
    batch = tokens(4)
    exact, rough = (logits(open_model(tmp_path / name).model, batch) for name in ("full", "int8"))
    assert float(torch.nn.functional.cosine_similarity(exact.flatten(), rough.flatten(), dim=0)) > 0.97


@pytest.mark.parametrize(("family", "causal"), CASES)
def test_peft_opens_the_adapter_on_the_unpruned_base(family: str, causal: bool, tmp_path: Path) -> None:
    origin, batch = source(family, causal), tokens(4)
    FORMATS["peft"].write(origin, tmp_path / "out")
    plain = attach(build(family, causal), origin.adapter, AdapterSpec(scaling=SCALING)).model.eval()
    opened = PeftModel.from_pretrained(build(family, causal), str(tmp_path / "out")).eval()
    close(logits(opened, batch), logits(plain, batch))


@pytest.mark.parametrize(("family", "causal"), CASES)
def test_peft_with_its_manifest_is_the_trained_model(family: str, causal: bool, tmp_path: Path) -> None:
    origin, batch = source(family, causal), tokens(4)
    FORMATS["peft"].write(origin, tmp_path / "out")
    save_base(origin, tmp_path / "base")
    opened = open_model(tmp_path / "out", base=tmp_path / "base")
    close(logits(opened.model, batch), masked_logits(origin, batch))


def test_another_base_is_refused_by_name(tmp_path: Path) -> None:
    FORMATS["peft"].write(source("bert", False), tmp_path / "out")
    save_base(source("bert", False, seed=1), tmp_path / "other")
    with pytest.raises(InputError, match=r"other' is not the model that .*trained on.*bert-base"):
        open_model(tmp_path / "out", base=tmp_path / "other")
    FORMATS["onnx"].write(source("bert", False), tmp_path / "whole")
    with pytest.raises(InputError, match="needs no base"):
        open_model(tmp_path / "whole", base=tmp_path / "other")


def test_a_change_of_the_base_is_folded_in_but_is_no_peft_adapter(tmp_path: Path) -> None:
    origin, batch = source("llama", True), tokens(4)
    name = origin.structure.blueprint.modules[0]
    change = np.random.default_rng(1).normal(0, 0.2, (48, 48)).astype(np.float32)
    changed = replace(origin, adapter=replace(origin.adapter, residual={name: change}))
    FORMATS["safetensors"].write(changed, tmp_path / "out")
    with torch.no_grad():
        origin.base.model.get_submodule(name).weight.add_(torch.from_numpy(change))
    close(logits(open_model(tmp_path / "out").model, batch), masked_logits(origin, batch))
    with pytest.raises(InputError, match="changed the frozen weights beyond LoRA"):
        FORMATS["peft"].write(changed, tmp_path / "peft")


@pytest.mark.parametrize("family", GGUF)
def test_gguf_reads_back_as_the_trained_model(family: str, tmp_path: Path) -> None:
    blueprint = discover(build(family, True))
    origin = source(family, True, structure=uniform_structure(blueprint, 2, 24), words=byte_level("gpt-2"))
    batch = tokens(4)
    FORMATS["gguf"].write(origin, tmp_path / "out")
    close(logits(open_model(tmp_path / "out").model, batch), masked_logits(origin, batch))
    reader = gguf.GGUFReader(tmp_path / "out" / "model.gguf")
    name = reader.get_field("general.architecture").contents()
    fields = [
        reader.get_field(f"{name}.{key}").contents() for key in ("attention.head_count_kv", "feed_forward_length")
    ]
    assert fields == [2, 24]
    values = origin.model().state_dict()["model.layers.1.mlp.down_proj.weight"].numpy()
    (stored,) = [tensor for tensor in reader.tensors if tensor.name == "blk.1.ffn_down.weight"]
    np.testing.assert_array_equal(stored.data, values)


@pytest.mark.parametrize("family", ["llama", "mistral"])  # its Qwen readers know no width of heads
def test_transformers_own_reader_opens_the_gguf(family: str, tmp_path: Path) -> None:
    blueprint = discover(build(family, True))
    origin = source(family, True, structure=uniform_structure(blueprint, 2, 24), words=byte_level("gpt-2"))
    batch = tokens(4)
    FORMATS["gguf"].write(origin, tmp_path / "out")
    (tmp_path / "out" / "config.json").unlink()  # everything from the one file
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "out", gguf_file="model.gguf", dtype=torch.float32)
    close(logits(opened, batch), masked_logits(origin, batch))


def test_gguf_carries_a_byte_level_vocabulary(tmp_path: Path) -> None:
    base = load_model(ModelSpec(path="builtin:tiny-decoder", task="causal-lm"), None, 1)
    blueprint = discover(base.model)
    spec = ModelSpec(path="builtin:tiny-decoder", task="causal-lm")
    origin = replace(
        source("llama", True),
        base=base,
        spec=spec,
        structure=uniform_structure(blueprint, 1, 128),
        adapter=draw_adapter(base.model, blueprint, 1),
    )
    FORMATS["gguf"].write(origin, tmp_path / "out")
    reader = gguf.GGUFReader(tmp_path / "out" / "model.gguf")
    texts = reader.get_field("tokenizer.ggml.tokens").contents()
    vocabulary = base.tokenizer.get_vocab()
    assert texts == sorted(vocabulary, key=vocabulary.__getitem__)
    assert reader.get_field("tokenizer.ggml.model").contents() == "gpt2"
    assert reader.get_field("tokenizer.ggml.bos_token_id").contents() == base.tokenizer.bos_token_id
    assert len(reader.get_field("tokenizer.ggml.merges").contents()) > 100


@pytest.mark.parametrize(
    ("family", "causal", "words"),
    [
        ("bert", False, "classification with a bert model cannot be written; valid: causal-lm with llama"),
        ("gpt2", False, "classification with a gpt2 model cannot be written"),
        ("llama", True, "layers keep different numbers"),
    ],
)
def test_what_gguf_cannot_say_is_refused_and_leaves_nothing(
    family: str, causal: bool, words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        FORMATS["gguf"].write(source(family, causal, seed=1), tmp_path / "out")
    assert not list(tmp_path.iterdir())
