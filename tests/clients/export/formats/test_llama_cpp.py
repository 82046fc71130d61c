"""The real llama.cpp opens every GGUF file: same tokens, same logits, same text."""

import json
from pathlib import Path

import pytest
import torch
from byte_level import HARD, byte_level
from exported import source, uniform_structure
from llama_cpp import LlamaCpp
from small_models import build
from tokenizers import Tokenizer
from transformers import GPT2Tokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer
from trimming import sentencepiece_bpe

from slimfed.clients.errors import InputError
from slimfed.clients.export.files.gguf_vocabulary import RULES
from slimfed.clients.export.formats.registry import FORMATS
from slimfed.clients.export.runtime.opened_model import open_model
from slimfed.clients.models.discovery import discover

FILES = [
    ("llama", "llama-bpe"),
    ("llama", "smaug-bpe"),
    ("llama", "smollm"),
    ("mistral", "gpt-2"),
    ("mistral", "tekken"),
    ("qwen2", "qwen2"),
    ("qwen3", "qwen2"),
]
OTHERS = [("gpt2", "gpt-2"), ("gemma", "sentencepiece"), ("gemma3-six", "sentencepiece")]
END = 2  # of the tokenizers here
PROMPTS = [
    [5, 77, 200, 301, 12],
    [400, 33, 9],
    [50, 60, 70, 80],
    [333, 444, 455],
    [350, 360, 370, 380, 390, 400, 410, 420],
]


def write(folder: Path, family: str, words: PreTrainedTokenizerFast, pruned: bool = True) -> torch.nn.Module:
    """Export a model with this tokenizer; the model that was exported."""
    blueprint = discover(build(family, True))
    heads = blueprint.blocks[0].units if family == "gpt2" else 2  # its configuration cannot say fewer
    structure = uniform_structure(blueprint, heads, 24) if pruned else blueprint.dense()
    origin = source(family, True, structure=structure, words=words)
    FORMATS["gguf"].write(origin, folder)
    return origin.model()


@pytest.mark.parametrize("pruned", [False, True], ids=["dense", "pruned"])
@pytest.mark.parametrize(("family", "kind"), FILES + OTHERS)
def test_llama_cpp_computes_what_the_model_does(family: str, kind: str, pruned: bool, tmp_path: Path) -> None:
    words = sentencepiece_bpe() if kind == "sentencepiece" else byte_level(kind)
    model = write(tmp_path / "out", family, words, pruned)
    opened = LlamaCpp(tmp_path / "out" / "model.gguf")
    assert [text for text in HARD if opened.tokens(text) != words(text)["input_ids"]] == []
    compared = 0
    off = 0.05 if (family, kind) in OTHERS else 0.01  # llama.cpp reads their activation from a table of 16 bits
    for prompt in PROMPTS:
        with torch.no_grad():
            expected = model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
        for token, found in opened.next_token(prompt, 20).items():
            assert found == pytest.approx(float(expected[token]), abs=off)
            compared += 1
        new = opened.goes_on(prompt, 12)
        if (family, kind) in OTHERS:
            assert_greedy(model, prompt, new)
        else:
            written = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, pad_token_id=0)
            assert new == written[0, len(prompt) :].tolist()
    assert compared >= 20


def assert_greedy(model: torch.nn.Module, prompt: list[int], new: list[int]) -> None:
    """Every token of ``new`` is the likeliest one after those before it, but for rounding."""
    assert len(new) == 12 or new[-1] == END
    with torch.no_grad():
        logits = model(torch.tensor([prompt + new])).logits[0, len(prompt) - 1 : -1]
    chosen = logits.gather(1, torch.tensor(new)[:, None])[:, 0]
    assert float((logits.amax(1) - chosen).max()) < 0.02


def test_every_rule_that_can_be_written_is_opened_here() -> None:
    assert set(RULES.values()) == {kind for _, kind in FILES}


@pytest.mark.parametrize("kind", [GPT2Tokenizer, Qwen2Tokenizer])
def test_the_tokenizers_of_transformers_can_be_written(kind: type, tmp_path: Path) -> None:
    model = json.loads(byte_level("gpt-2").backend_tokenizer.to_str())["model"]
    tokens = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "</s>"}
    words = kind(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]], **tokens)
    write(tmp_path / "out", "llama", words)
    opened = LlamaCpp(tmp_path / "out" / "model.gguf")
    assert [text for text in HARD if opened.tokens(text) != words(text)["input_ids"]] == []


def test_slimfed_and_llama_cpp_go_on_alike(tmp_path: Path) -> None:
    words = byte_level("llama-bpe")
    write(tmp_path / "out", "llama", words)
    opened = LlamaCpp(tmp_path / "out" / "model.gguf")
    ours = open_model(tmp_path / "out").continuations(["turn on the light"], 12)
    tokens = opened.goes_on(opened.tokens("turn on the light"), 12)
    assert words.decode(tokens, skip_special_tokens=True) == ours[0]


@pytest.mark.parametrize("change", ["rule", "lower case", "space first", "merges", "words"])
def test_a_tokenizer_that_llama_cpp_cannot_repeat_is_refused_and_leaves_nothing(change: str, tmp_path: Path) -> None:
    from tokenizers import normalizers, pre_tokenizers

    words = None if change == "words" else byte_level("unknown" if change == "rule" else "gpt-2")
    if words is not None:
        inner = Tokenizer.from_str(words.backend_tokenizer.to_str())
        if change == "lower case":
            inner.normalizer = normalizers.Lowercase()
        elif change == "space first":
            inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        elif change == "merges":
            inner.model.ignore_merges = True
        words = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    causes = {
        "lower case": r"changes a text first \(Lowercase\)",
        "words": "is of type WordLevel, not a byte-level BPE",
    }
    origin = source("llama", True, structure=discover(build("llama", True)).dense(), words=words)
    with pytest.raises(InputError, match=causes.get(change, "splits a text by a rule that has no name in llama.cpp")):
        FORMATS["gguf"].write(origin, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("family", "field", "value"),
    [
        ("gemma3_text", None, None),
        ("gemma3-six", "query_pre_attn_scalar", 16),
        ("gemma3-six", "final_logit_softcapping", 30.0),
        ("gpt2", "activation_function", "relu"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(family: str, field, value, tmp_path: Path) -> None:
    blueprint = discover(build(family, True))
    words = byte_level("gpt-2") if family == "gpt2" else sentencepiece_bpe()
    origin = source(family, True, structure=blueprint.dense(), words=words)
    if field is not None:
        setattr(origin.base.model.config, field, value)
    with pytest.raises(InputError, match=rf"--format = 'gguf': {field or 'layer_types'} = .*llama.cpp computes every"):
        FORMATS["gguf"].write(origin, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_merges_that_llama_cpp_would_not_make_alike_are_refused(tmp_path: Path) -> None:
    document = json.loads(sentencepiece_bpe().backend_tokenizer.to_str())
    one, two = next(pair for pair in document["model"]["merges"] if len("".join(pair)) > 2)
    document["model"]["merges"].remove([one, two])
    inner = Tokenizer.from_str(json.dumps(document))
    words = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    origin = source("gemma", True, structure=discover(build("gemma", True)).dense(), words=words)
    with pytest.raises(InputError, match=r"does not merge .* though .* is a token, which llama.cpp would do"):
        FORMATS["gguf"].write(origin, tmp_path / "out")
