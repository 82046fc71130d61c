"""A GGUF file is read as llama.cpp reads it: the same tokens, the same logits."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from byte_level import HARD, byte_level
from exported import source, uniform_structure
from llama_cpp import LlamaCpp
from small_models import build
from smollm2 import smollm2
from transformers import PreTrainedTokenizerFast
from trimming import sentencepiece_bpe

from slimfed.clients.errors import InputError
from slimfed.clients.export.formats.registry import FORMATS
from slimfed.clients.inputs import model_digests
from slimfed.clients.models import gguf_file
from slimfed.clients.models.discovery import discover
from slimfed.clients.models.loading import load_model
from slimfed.clients.models.quantised_base import quantised_linears
from slimfed.clients.spec import ModelSpec

FILES = [
    ("llama", "llama-bpe"),
    ("llama", "smollm"),
    ("mistral", "tekken"),
    ("qwen2", "qwen2"),
    ("qwen3", "qwen2"),
    ("gpt2", "gpt-2"),
    ("gemma3-six", "sentencepiece"),
]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SLIMFED_CACHE", str(folder))
    return folder


def spec(file: Path) -> ModelSpec:
    return ModelSpec(path=str(file), task="causal-lm")


def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    return sentencepiece_bpe() if kind == "sentencepiece" else byte_level(kind)


def write(folder: Path, family: str = "llama", kind: str = "smollm") -> tuple[Path, torch.nn.Module]:
    """A model in a file, and the model."""
    words = tokenizer(kind)
    blueprint = discover(build(family, True))
    structure = uniform_structure(blueprint, 2, 24) if family not in ("qwen2", "gpt2") else blueprint.dense()
    origin = source(family, True, structure=structure, words=words)
    FORMATS["gguf"].write(origin, folder)
    return folder / "model.gguf", origin.model()


@pytest.mark.parametrize(("family", "kind"), FILES)
def test_what_was_written_is_read(family: str, kind: str, tmp_path: Path) -> None:
    file, model = write(tmp_path / "out", family, kind)
    loaded = load_model(spec(file), None, 1)
    words = tokenizer(kind)
    assert [text for text in HARD if loaded.tokenizer(text)["input_ids"] != words(text)["input_ids"]] == []
    ids = torch.tensor([[5, 77, 200, 301, 12]])
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-4)
    assert (loaded.precision, "(GGUF, F32, SHA-256 " in loaded.origin) == ("fp32", True)
    assert list(model_digests(spec(file))) == ["model.gguf"]
    assert discover(loaded.model).units > 0


def test_it_can_be_quantised_for_devices_again(tmp_path: Path) -> None:
    file, model = write(tmp_path / "out", "gpt2", "gpt-2")
    loaded = load_model(spec(file).model_copy(update={"quantization": "int8"}), None, 1)
    assert len(quantised_linears(loaded.model)) == len(discover(model).modules)
    ids = torch.tensor([[5, 77, 200, 301, 12]])
    with torch.no_grad():
        found, expected = loaded.model(ids).logits, model(ids).logits
    assert 0 < (found - expected).abs().max() < 0.1 * expected.abs().max()


def test_a_file_is_dequantised_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, _ = write(tmp_path / "out")
    first = load_model(spec(file), None, 1)
    monkeypatch.setattr(gguf_file, "_convert", None)  # would fail
    again = load_model(spec(file), None, 1)
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True))
    assert [path.name for path in (cache / "gguf").iterdir()] == [again.model.config._name_or_path.rsplit("/")[-1]]


def changed(file: Path, out: Path, fields: dict[str, object], extra: dict[str, np.ndarray] | None = None) -> Path:
    """A copy of ``file`` with other values of some fields, and more tensors."""
    reader = gguf.GGUFReader(file)
    writer = gguf.GGUFWriter(out, "llama")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind = field.types[0]
        value = fields.get(name, field.contents())
        writer.add_key_value(name, value, kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    for name in fields.keys() - reader.fields.keys():
        writer.add_uint16(name, int(str(fields[name])))
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data))
    for name, value in (extra or {}).items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


@pytest.mark.parametrize(
    ("fields", "tensors", "cause"),
    [
        ({"tokenizer.ggml.pre": "made-up"}, {}, "splits a text by the rule 'made-up'"),
        ({"split.count": 2}, {}, "is one of several parts"),
        ({}, {"rope_freqs.weight": np.full(4, 7.0, np.float32)}, "is a rotary scaling other than that of Llama 3"),
        ({}, {"blk.0.attn_q.bias": np.ones(16, np.float32)}, "has tensors that such a model has not"),
    ],
    ids=["rule", "parts", "rotary", "tensor"],
)
def test_what_cannot_be_repeated_is_refused_and_leaves_nothing(fields, tensors, cause, tmp_path: Path, cache) -> None:
    file, _ = write(tmp_path / "out")
    other = changed(file, tmp_path / "other.gguf", fields, tensors)
    with pytest.raises(InputError, match=cause):
        load_model(spec(other), None, 1)
    assert not list((cache / "gguf").iterdir())


def test_llama_3_stretches_its_rotation_as_the_file_says(tmp_path: Path) -> None:
    file, _ = write(tmp_path / "out")
    config = load_model(spec(file), None, 1).model.config
    half = config.head_dim // 2
    waves = 2 * np.pi * 500_000 ** (np.arange(half) / half)
    smooth = (8192 / waves - 1) / 3
    factors = np.where(waves < 2048, 1, np.where(waves > 8192, 32, 1 / ((1 - smooth) / 32 + smooth)))
    other = changed(
        file,
        tmp_path / "other.gguf",
        {"llama.rope.freq_base": 500_000.0},
        {"rope_freqs.weight": factors.astype(np.float32)},
    )
    rope = load_model(spec(other), None, 1).model.config.rope_parameters
    assert (rope["rope_type"], rope["factor"], rope["original_max_position_embeddings"]) == ("llama3", 32.0, 8192)


@pytest.mark.parametrize("content", [b"", b"no file", b"GGUF", b"GGUF" + bytes(60), "half"])
def test_a_damaged_file_is_refused(content: bytes | str, tmp_path: Path) -> None:
    if content == "half":
        whole = write(tmp_path / "out")[0].read_bytes()
        content = whole[: len(whole) // 2]
    file = tmp_path / "model.gguf"
    file.write_bytes(content)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r'model\.path = ".*model\.gguf": (is no GGUF file|cannot be read as GGUF)'):
        load_model(spec(file), None, 1)


def test_a_missing_file_and_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        load_model(spec(tmp_path / "none.gguf"), None, 1)
    file, _ = write(tmp_path / "out")
    (tmp_path / "taken").touch()
    monkeypatch.setenv("SLIMFED_CACHE", str(tmp_path / "taken"))
    with pytest.raises(InputError, match="name a folder that can, with SLIMFED_CACHE"):
        load_model(spec(file), None, 1)


def test_an_encoder_task_takes_a_decoder_in_a_file(tmp_path: Path) -> None:
    file, _ = write(tmp_path / "out")
    loaded = load_model(replace_task(spec(file)), ("no", "yes"), 1)
    assert loaded.head == ("score.weight",)


def replace_task(given: ModelSpec) -> ModelSpec:
    return given.model_copy(update={"task": "classification"})


def test_smollm2_is_read_as_llama_cpp_reads_it(monkeypatch: pytest.MonkeyPatch, shared_cache: Path) -> None:
    monkeypatch.setenv("SLIMFED_CACHE", str(shared_cache))
    file = smollm2()
    loaded, opened = load_model(spec(file), None, 1), LlamaCpp(file)
    assert [text for text in HARD if opened.tokens(text) != loaded.tokenizer(text)["input_ids"]] == []
    assert loaded.precision == "fp16"
    assert "<|im_start|>" in loaded.tokenizer.chat_template
    prompt = loaded.tokenizer("Paris is the capital of")["input_ids"]
    with torch.no_grad():
        expected = loaded.model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
    found = opened.next_token(prompt, 10)
    assert max(found, key=lambda token: found[token]) == int(expected.argmax())
    for token, value in found.items():  # llama.cpp rounds activations to 8 bits
        assert value == pytest.approx(float(expected[token]), abs=0.3)
