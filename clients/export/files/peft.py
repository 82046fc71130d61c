"""The adapter alone, in PEFT's own format: valid on the unpruned base, and with the manifest on the sliced one."""

import json
from pathlib import Path

import torch
from peft import (
    LoraConfig,
    PeftModel,
    TaskType,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from torch import nn

from slimfed.clients.errors import InputError
from slimfed.clients.export import manifest as manifests
from slimfed.clients.export.atomic_folder import whole_folder
from slimfed.clients.export.files.safetensors import load_tokenizer, read_tensors
from slimfed.clients.export.manifest import CARD, Manifest, weights_digest
from slimfed.clients.export.slim_model import SlimModel
from slimfed.clients.export.source import Source
from slimfed.clients.models.discovery import discover
from slimfed.clients.models.loading import load_model, quiet
from slimfed.clients.models.quantised_base import dequantise_linears
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.clients.spec import ModelSpec

_TASKS = {"classification": TaskType.SEQ_CLS, "causal-lm": TaskType.CAUSAL_LM}
_NAME = "default"


def save_peft(source: Source, folder: Path, card: str) -> Manifest:
    """Write ``folder``: adapter_config.json, adapter_model.safetensors, tokenizer, manifest and card.

    The factors keep all coordinates of the base: ``PeftModel.from_pretrained(base, folder)`` is the tuned model before
    anything is cut. Raises ``InputError`` if the run changed more than LoRA can say.
    """
    _check_plain(source)
    with whole_folder(folder) as aside:
        adapted = _attached(source)
        with quiet():
            adapted.save_pretrained(str(aside), save_embedding_layers=False)
        source.base.tokenizer.save_pretrained(aside)
        _name_base(aside / "adapter_config.json", source.spec)
        (aside / CARD).write_text(card, encoding="utf-8")
        return manifests.write(aside, source.manifest.model_copy(update={"kind": "peft"}))


def load_peft(folder: Path, manifest: Manifest, base: Path | str | None) -> SlimModel:
    """The base, with the adapter folded in, cut to the manifest's structure: the model that was trained.

    ``base``: where the base is; default: where the run had it. Raises ``InputError`` if it is another one.
    """
    spec = ModelSpec(
        path=str(base or manifest.base.path),
        revision=manifest.base.revision,
        task=manifest.task,
        quantization=manifest.base.quantization,
    )
    loaded = load_model(spec, manifest.labels, manifest.provenance.seed)
    if weights_digest(loaded.model, manifest.head) != manifest.base.sha256:
        raise InputError(
            f"base {spec.path!r} is not the model that {str(folder)!r} was trained on (SHA-256 of its weights "
            f"differs); give a copy of {manifest.base.path!r} with --base"
        )
    merged = _with_adapter(dequantise_linears(loaded.model), folder).merge_and_unload()
    merged.requires_grad_(False)
    model = slice_model(merged.eval(), manifest.structure(discover(merged)))
    return SlimModel(model, load_tokenizer(folder, manifest), manifest)


def _with_adapter(model: nn.Module, folder: Path) -> PeftModel:
    """The adapter of a folder on its base. Raises ``InputError`` that names a tensor that does not fit."""
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            adapted = get_peft_model(model, LoraConfig.from_pretrained(str(folder)))
    except (ValueError, TypeError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{str(folder)!r}: its adapter_config.json does not fit the base: {reason}") from None
    tensors, wanted = read_tensors(folder), get_peft_model_state_dict(adapted, save_embedding_layers=False)
    for name, value in wanted.items():  # PEFT would go on without what is missing
        if name not in tensors:
            raise InputError(f"{str(folder)!r}: tensor {name} is missing; export the model again")
        if tensors[name].shape != value.shape:
            raise InputError(
                f"{str(folder)!r}: tensor {name} has shape {list(tensors[name].shape)}, the base wants "
                f"{list(value.shape)}; export the model again"
            )
    unknown = next((name for name in tensors if name not in wanted), None)
    if unknown is not None:
        raise InputError(f"{str(folder)!r}: tensor {unknown} does not belong to the adapter; export the model again")
    set_peft_model_state_dict(adapted, tensors)
    return adapted


def _check_plain(source: Source) -> None:
    """LoRA factors and a head are all that PEFT's format holds."""
    adapter = source.adapter
    if adapter.residual or adapter.deltas or adapter.extra:
        raise InputError(
            "--format = 'peft': this run changed the frozen weights beyond LoRA factors (method "
            f"{source.provenance.method}), which PEFT's format cannot hold; export safetensors"
        )


def _attached(source: Source) -> PeftModel:
    """A PEFT model on (shared weights of) the base, filled with what was trained."""
    model = dequantise_linears(slice_model(source.base.model, source.structure.blueprint.dense()))
    factors = source.adapter.factors
    rank = next(iter(factors.values())).a.shape[0]
    config = LoraConfig(
        task_type=_TASKS[source.spec.task],
        r=rank,
        lora_alpha=source.scaling * rank,
        lora_dropout=0.0,
        target_modules=list(factors),
        modules_to_save=_head_modules(source) or None,
        init_lora_weights=False,
        fan_in_fan_out=model.config.model_type == "gpt2",
    )
    with torch.random.fork_rng(devices=[]):
        adapted = get_peft_model(model, config)
    inner = adapted.get_base_model()
    with torch.no_grad():
        for name, f in factors.items():
            layer = inner.get_submodule(name)
            layer.lora_A[_NAME].weight.copy_(torch.from_numpy(f.a))
            layer.lora_B[_NAME].weight.copy_(torch.from_numpy(f.b))
        for name, value in source.adapter.head.items():
            _trained(inner, name).copy_(torch.from_numpy(value))
    return adapted


def _head_modules(source: Source) -> list[str]:
    """Modules that hold the trained head: those outside the backbone, and a pooler within."""
    prefix = source.base.model.base_model_prefix
    paths = (name.split(".") for name in source.adapter.head)
    return list(dict.fromkeys(path[1] if path[0] == prefix else path[0] for path in paths))


def _trained(model: nn.Module, name: str) -> torch.Tensor:
    """The copy of a head's parameter that PEFT trains: it wraps the outermost module of the head."""
    module, path = model, name.split(".")
    for part in path[:-1]:
        module = module.get_submodule(part)
        copies = getattr(module, "modules_to_save", None)
        if isinstance(copies, nn.ModuleDict):
            module = copies[_NAME]
    return module.get_parameter(path[-1])


def _name_base(path: Path, spec: ModelSpec) -> None:
    """Say which base the adapter belongs to as the job said it, not where this machine keeps it."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": spec.path, "revision": spec.revision}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
