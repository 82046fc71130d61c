"""``adapter.targets``, rsLoRA and LoRA+ mean what they mean in PEFT."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from small_models import build
from training import adapter, opened, task

from slimfed.clients.adapters.targets import bare_block, targeted
from slimfed.clients.adapters.training.base import parameter_groups
from slimfed.clients.adapters.training.lora import attach
from slimfed.clients.errors import InputError
from slimfed.clients.models.discovery import discover
from slimfed.clients.spec import AdapterSpec
from slimfed.platform.job.job import Job
from slimfed.platform.launch.preflight import check


@pytest.mark.parametrize(
    "targets", ["all-linear", ("q_proj", "v_proj"), ("mlp.up_proj",), ("1.self_attn.o_proj",)], ids=str
)
def test_the_same_modules_as_in_peft(targets) -> None:
    model = build("llama", True)
    wanted = targets if isinstance(targets, str) else list(targets)
    adapted = get_peft_model(build("llama", True), LoraConfig(task_type="CAUSAL_LM", target_modules=wanted))
    expected = [name.removeprefix("base_model.model.") for name in adapted.targeted_module_names]
    assert sorted(targeted(discover(model), targets)) == sorted(expected)


def test_attention_ffn_and_names_that_are_not_there() -> None:
    blueprint = discover(build("bert"))
    attention, ffn = targeted(blueprint, "attention"), targeted(blueprint, "ffn")
    assert sorted(attention + ffn) == sorted(blueprint.modules)
    assert all(".attention." in name for name in attention)
    assert bare_block(blueprint, attention) == "bert.encoder.layer.0.ffn"
    assert bare_block(blueprint, blueprint.modules) is None
    with pytest.raises(InputError, match=r"targets: 'q_proj' is none of the modules.*valid: query, key, value, dense"):
        targeted(blueprint, ("query", "q_proj"))


def test_learning_rates_are_those_of_pefts_lora_plus() -> None:
    base, blueprint = opened("llama", True)
    adapted = attach(base.model, adapter(base, blueprint, 1, 4), task(True).adapter)
    theirs = create_loraplus_optimizer(base.model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16.0)
    expected = {id(p): group["lr"] for group in theirs.param_groups for p in group["params"]}
    found = {id(p): 1e-3 * group["times"] for group in parameter_groups(adapted, 0.0, 16.0) for p in group["params"]}
    assert found == pytest.approx({key: rate for key, rate in expected.items() if key in found})
    assert set(found.values()) == {1e-3, 1.6e-2}


def job(**adapter: object) -> Job:
    return Job.model_validate(
        {
            "method": {"name": "fedspine"} | adapter.pop("method", {}),
            "fleet": {"devices": 2},
            "bandit": {"ranks": [4, 16]},
            "adapter": adapter,
            "engine": {"name": "cohort", "workers": 1, "cohort_size": 2, "dtype": "fp32"},
        }
    )


def test_rank_stabilised_scaling_is_pefts_at_the_largest_rank() -> None:
    spec = job(scaling=2.0, rslora=True).task_spec().adapter
    config = LoraConfig(r=16, lora_alpha=32, use_rslora=True, target_modules=["q_proj"])
    layer = get_peft_model(build("llama", True), config).base_model.model.model.layers[0].self_attn.q_proj
    assert spec.scaling == pytest.approx(layer.scaling["default"])
    assert AdapterSpec().scaling == job().task_spec().adapter.scaling == 2.0


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match=r"targets: is an option of LoRA's factors, which method\.adapter = 'pat'"):
        job(targets="attention", method={"adapter": "pat"})
    with pytest.raises(ValueError, match="must name at least one module"):
        job(targets=[])
    with pytest.raises(InputError, match=r"has no adapter, and method\.importance = 'lora-gradient' scores"):
        check(job(targets="attention", method={"importance": "lora-gradient"}))
    check(job(targets="attention"))
