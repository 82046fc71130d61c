"""A PEFT adapter is merged into its base; checkpoints in parts and in 16 bits are read as they are."""

import json
from pathlib import Path

import pytest
import torch
from exported import tokenizer
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from small_models import build, tokens
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from slimfed.clients.errors import InputError
from slimfed.clients.inputs import model_digests
from slimfed.clients.models.loading import load_model
from slimfed.clients.spec import ModelSpec

LABELS = ("no", "yes")


def saved(folder: Path, causal: bool, **options) -> Path:
    build("qwen2" if causal else "bert", causal).save_pretrained(folder, **options)
    tokenizer().save_pretrained(folder)
    return folder


def tuned(base: Path, folder: Path, causal: bool) -> Path:
    """An adapter with values, as PEFT saves it."""
    auto = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
    kind = TaskType.CAUSAL_LM if causal else TaskType.SEQ_CLS
    torch.manual_seed(3)
    config = LoraConfig(task_type=kind, r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(auto.from_pretrained(base), config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("causal", [False, True], ids=["classification", "causal-lm"])
@pytest.mark.parametrize("moved", [False, True], ids=["named", "moved"])
def test_an_adapter_is_merged_into_its_base(causal: bool, moved: bool, tmp_path: Path) -> None:
    base = saved(tmp_path / "base", causal)
    folder = tuned(base, tmp_path / "adapter", causal)
    auto = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
    expected = PeftModel.from_pretrained(auto.from_pretrained(base), folder).eval()
    if moved:
        base = base.rename(tmp_path / "elsewhere")
    spec = ModelSpec(
        path=str(folder), base=str(base) if moved else None, task="causal-lm" if causal else "classification"
    )
    loaded = load_model(spec, None if causal else LABELS, 1)
    batch = tokens(2)
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(**batch).logits, expected(**batch).logits, rtol=1e-4, atol=1e-4)
    assert loaded.origin == f"{base} with the adapter {folder}"
    assert {"adapter_model.safetensors", "base/model.safetensors", "base/config.json"} <= set(model_digests(spec))
    assert not any("lora" in name for name, _ in loaded.model.named_parameters())


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"peft_type": "IA3"}, "is of type 'IA3'; only LORA can be merged"),
        ({"base_model_name_or_path": None}, "does not name its base; give it as model.base"),
        ({"r": 8}, "of shape"),
        ({"target_modules": ["q_proj"]}, "for which its base has no place"),
        ({"megatron_config": {"a": 1}}, "is for Megatron's layers"),
    ],
    ids=["type", "base", "rank", "modules", "megatron"],
)
def test_an_adapter_that_does_not_fit_is_refused(change: dict, cause: str, tmp_path: Path) -> None:
    folder = tuned(saved(tmp_path / "base", True), tmp_path / "adapter", True)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InputError, match=cause):
        load_model(ModelSpec(path=str(folder), task="causal-lm"), None, 1)


def test_a_base_is_refused_where_there_is_no_adapter(tmp_path: Path) -> None:
    folder = saved(tmp_path / "base", True)
    with pytest.raises(InputError, match=r'model\.base = "other".*is no adapter'):
        load_model(ModelSpec(path=str(folder), base="other", task="causal-lm"), None, 1)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_parts_and_16_bits_are_read_in_fp32(precision: str, tmp_path: Path) -> None:
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    model = build("llama", True).to(dtype)
    model.save_pretrained(tmp_path, max_shard_size="30KB")
    tokenizer().save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    loaded = load_model(ModelSpec(path=str(tmp_path), task="causal-lm"), None, 1)
    assert loaded.precision == precision
    for name, value in model.named_parameters():
        assert torch.equal(loaded.model.get_parameter(name), value.float()), name
