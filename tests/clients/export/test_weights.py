"""The type of exported weights, the prompt's format, and what llama.cpp makes of both."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import gguf
import pytest
import torch
from byte_level import byte_level
from exported import source, uniform_structure
from llama_cpp import LlamaCpp
from small_models import build
from transformers import AutoModelForCausalLM

from slimfed.clients.data.chat import CHATML, prompt_text, stop_tokens
from slimfed.clients.data.conversations import Turn
from slimfed.clients.errors import InputError
from slimfed.clients.export.files.gguf_weights import Kind, kind_of
from slimfed.clients.export.formats.registry import FORMATS
from slimfed.clients.export.prompt_format import modelfile
from slimfed.clients.export.runtime.opened_model import open_model
from slimfed.clients.export.source import Source
from slimfed.clients.export.weights import chosen_weights
from slimfed.clients.models.discovery import discover
from slimfed.clients.spec import DataSpec

PROMPTS = [[5, 77, 200, 301, 12], [400, 33, 9], [50, 60, 70, 80]]


def origin(weights: str, data: DataSpec | None = None) -> Source:
    """A uniform small Llama with a tokenizer that speaks ChatML."""
    words = copy.deepcopy(byte_level("smollm"))
    words.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    words.chat_template = CHATML
    structure = uniform_structure(discover(build("llama", True)), 2, 32)
    made = source("llama", True, structure=structure, words=words)
    return replace(made, weights=weights, data=data or made.data, prompted=data is not None)


@pytest.mark.parametrize("weights", ["fp32", "bf16", "fp16"])
def test_safetensors_have_the_type_that_was_asked_for(weights: str, tmp_path: Path) -> None:
    made = origin(weights)
    before = {name: value.clone() for name, value in made.base.model.state_dict().items()}
    FORMATS["safetensors"].write(made, tmp_path / "out")
    size = (tmp_path / "out" / "model.safetensors").stat().st_size
    parameters = sum(p.numel() for p in made.model().parameters())
    assert size == pytest.approx(parameters * (4 if weights == "fp32" else 2), rel=0.05)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert plain.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[weights]
    opened = open_model(tmp_path / "out").model
    for name, value in opened.named_parameters():
        expected = made.model().get_parameter(name).to(plain.dtype).float()
        assert torch.equal(value, expected), name
    assert all(torch.equal(value, before[name]) for name, value in made.base.model.state_dict().items())


def test_a_weight_too_large_for_fp16_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    made = origin("fp16")
    with torch.no_grad():
        made.base.model.model.norm.weight[0] = 1e6
        made.base.model.lm_head.weight[0] = 1e6
    for kind in ("safetensors", "gguf"):
        with pytest.raises(InputError, match=r"--dtype = 'fp16'.*use bf16 or fp32"):
            FORMATS[kind].write(made, tmp_path / kind)
    assert not list(tmp_path.iterdir())


def test_what_each_format_can_be_written_in() -> None:
    assert chosen_weights("safetensors", FORMATS["safetensors"].weights, "bf16") == "bf16"
    assert chosen_weights("onnx", FORMATS["onnx"].weights, "bf16") == "fp32"
    assert chosen_weights("gguf", FORMATS["gguf"].weights, "fp16", None, "Q4_K_M") == "q4_k_m"
    for arguments, cause in (
        (("safetensors", "fp32", "int8", None), "--dtype = 'int8': --format safetensors has fp32, bf16, fp16"),
        (("onnx", "fp32", "bf16", None), "--format onnx has fp32"),
        (("onnx", "fp32", None, "q8_0"), "is for --format gguf, not onnx"),
        (("gguf", "fp32", None, "q2_k"), "--format gguf has f32, f16, bf16, q8_0, q4_0, q4_k_m"),
        (("gguf", "fp32", "fp16", "f16"), "give one of them"),
    ):
        format, base, dtype, quantization = arguments
        with pytest.raises(InputError, match=cause):
            chosen_weights(format, FORMATS[format].weights, base, dtype, quantization)


@pytest.mark.parametrize(
    ("weights", "off"), [("fp16", 0.01), ("bf16", 0.1), ("q8_0", 0.3), ("q4_0", 2.5), ("q4_k_m", 2.5)]
)
def test_llama_cpp_runs_every_type(weights: str, off: float, tmp_path: Path) -> None:
    made = origin(weights)
    FORMATS["gguf"].write(made, tmp_path / "out")
    model, opened = made.model(), LlamaCpp(tmp_path / "out" / "model.gguf")
    ours = open_model(tmp_path / "out")
    for prompt in PROMPTS:
        with torch.no_grad():
            expected = model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
            stored = ours.model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
        for token, found in opened.next_token(prompt, 10).items():
            assert found == pytest.approx(float(expected[token]), abs=off)
            assert found == pytest.approx(float(stored[token]), abs=min(off, 0.3))
        if weights == "fp16":
            written = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, pad_token_id=0)
            assert opened.goes_on(prompt, 12) == written[0, len(prompt) :].tolist()


def test_q4_k_m_gives_each_tensor_the_type_that_llama_cpp_gives_it() -> None:
    def of(name: str, width: int = 512, tied: bool = True) -> Kind:
        return kind_of(name, width, "q4_k_m", 32, tied)

    assert of("token_embd.weight") == of("output.weight", tied=False) == Kind.Q6_K
    assert of("token_embd.weight", tied=False) == of("blk.5.attn_q.weight") == Kind.Q4_K
    fine = [n for n in range(32) if of(f"blk.{n}.ffn_down.weight") == Kind.Q6_K]
    assert fine == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    assert of("blk.5.attn_q.weight", 576) == Kind.Q5_0  # as SmolLM2's rows, no multiple of 256
    assert of("blk.0.attn_v.weight", 576) == Kind.Q8_0
    assert of("blk.5.attn_q.weight", 48) == Kind.F16


def test_q4_0_has_four_bits_but_for_the_output_embedding() -> None:
    assert kind_of("blk.0.attn_v.weight", 576, "q4_0", 30, True) == Kind.Q4_0
    assert kind_of("token_embd.weight", 576, "q4_0", 30, True) == Kind.Q8_0
    assert kind_of("token_embd.weight", 512, "q4_0", 30, True) == Kind.Q6_K
    assert kind_of("token_embd.weight", 576, "q4_0", 30, False) == Kind.Q4_0
    assert kind_of("blk.0.ffn_down.weight", 40, "q4_0", 30, True) == Kind.F16


def test_k_quants_are_llama_cpps_own(tmp_path: Path) -> None:
    from slimfed.clients.export.files.gguf_weights import add_tensor

    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    torch.manual_seed(0)
    value = torch.randn(6, 512)
    add_tensor(writer, "blk.5.attn_q.weight", value.numpy(), "q4_k_m", 32, True)
    add_tensor(writer, "token_embd.weight", value.numpy(), "q4_k_m", 32, True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    for tensor, kind, off in zip(
        gguf.GGUFReader(tmp_path / "a.gguf").tensors, (Kind.Q4_K, Kind.Q6_K), (0.3, 0.08), strict=True
    ):
        assert tensor.tensor_type == kind
        found = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy())
        assert float((found - value).abs().max()) < off


def test_the_file_carries_the_template_and_what_ends_an_answer(tmp_path: Path) -> None:
    made = origin("fp16", DataSpec(messages="messages", system="Be brief."))
    FORMATS["gguf"].write(made, tmp_path / "out")
    reader = gguf.GGUFReader(tmp_path / "out" / "model.gguf")
    assert reader.get_field("tokenizer.chat_template").contents() == CHATML
    ender = made.base.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert reader.get_field("tokenizer.ggml.eot_token_id").contents() == ender
    card = (tmp_path / "out" / "README.md").read_text()
    assert "````text\n<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is the capital" in card
    assert "The line break at its end must be there. The answer ends with `<|im_end|>` or `</s>`." in card
    assert (tmp_path / "out" / "Modelfile").read_text().startswith("FROM ./model.gguf\nTEMPLATE")
    manifest = json.loads((tmp_path / "out" / "slimfed.json").read_text())
    assert manifest["weights"] == "fp16"
    assert "Modelfile" in manifest["files"]


SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "<|im_start|>system\nI help.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    "<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}"
)


def filled(template: str, system: str, prompt: str) -> str:
    """What Ollama makes of a template for one question, up to the answer."""
    text = template.partition("{{ .Response }}")[0]
    if "{{ if .System }}" in text:
        head, _, rest = text.partition("{{ if .System }}")
        told, _, rest = rest.partition("{{ else }}")
        bare, _, rest = rest.partition("{{ end }}")
        text = head + (told if system else bare) + rest
    return text.replace("{{ .System }}", system).replace("{{ .Prompt }}", prompt)


@pytest.mark.parametrize(
    ("template", "system"),
    [(CHATML, ""), (CHATML, "Be brief."), (SMOLLM2, ""), (SMOLLM2, "Be brief."), (NO_SYSTEM, "")],
    ids=["chatml", "chatml told", "smollm2", "smollm2 told", "no system"],
)
def test_a_modelfile_writes_the_prompt_of_training(template: str, system: str) -> None:
    made = origin("fp16", DataSpec(messages="messages", system=system))
    words = made.base.tokenizer
    words.chat_template = template
    if template == SMOLLM2:
        words.bos_token = "<|im_start|>"  # the first token of a turn, which the tokenizer adds to no text
    text = modelfile(made.manifest, words, "model.gguf")
    shown = text.partition('TEMPLATE """')[2].partition('"""')[0]
    told = text.partition('SYSTEM """')[2].partition('"""')[0]
    chat = ((Turn("system", system),) if system else ()) + (Turn("user", "Who?"),)
    assert filled(shown, told, "Who?") == prompt_text(words, chat).removeprefix("<s>")
    stops = words.convert_ids_to_tokens(stop_tokens(words))
    assert [line for line in text.splitlines() if "stop" in line] == [f'PARAMETER stop "{each}"' for each in stops]
