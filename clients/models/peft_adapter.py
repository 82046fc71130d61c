"""A PEFT adapter as the start of a run: merged into its base when the base is loaded."""

import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel

from slimfed.clients.errors import InputError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_LARGEST_CONFIG_BYTES = 2**20


def is_adapter(folder: Path) -> bool:
    """True for a folder with an adapter and no model beside it."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").exists()


def base_of(folder: Path) -> str:
    """The base that the adapter says it belongs to. Raises :class:`InputError` if it cannot be merged."""
    config = _read(folder)
    if config.get("peft_type") != "LORA":
        raise _refused(folder, f"is of type {config.get('peft_type')!r:.40}; only LORA can be merged")
    if config.get("megatron_config"):
        raise _refused(folder, "is for Megatron's layers")
    if not (folder / WEIGHTS).is_file():
        raise _refused(folder, f"has no {WEIGHTS}; call save_pretrained again (pickled weights are never read)")
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise _refused(folder, "does not name its base; give it as model.base")
    return base


def merged(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """``model`` with the adapter of ``folder`` in its weights. Raises :class:`InputError` for what does not fit."""
    try:
        with torch.random.fork_rng(devices=[]):
            adapted = get_peft_model(model, LoraConfig.from_pretrained(str(folder)))
    except (ValueError, TypeError, KeyError, OSError, AttributeError) as error:
        raise _refused(folder, f"does not fit its base: {' '.join(str(error).split())[:200]}") from None
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise _refused(folder, f"has weights that cannot be read: {str(error)[:100]}") from None
    wanted = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    for name in sorted(wanted.keys() | tensors.keys()):
        if name not in tensors:
            raise _refused(folder, f"lacks tensor {name}")
        if name not in wanted:
            raise _refused(folder, f"has tensor {name}, for which its base has no place")
        if tensors[name].shape != wanted[name].shape:
            shapes = f"{list(tensors[name].shape)}, its base wants {list(wanted[name].shape)}"
            raise _refused(folder, f"has tensor {name} of shape {shapes}")
    set_peft_model_state_dict(adapted, tensors)
    plain: PreTrainedModel = adapted.merge_and_unload(safe_merge=True)
    return plain


def _read(folder: Path) -> dict[str, object]:
    try:
        if (folder / CONFIG).stat().st_size > _LARGEST_CONFIG_BYTES:
            raise ValueError("too large")
        document = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise _refused(folder, f"has a {CONFIG} that cannot be read: {str(error)[:100]}") from None
    if not isinstance(document, dict):
        raise _refused(folder, f"has a {CONFIG} that is no object")
    return document


def _refused(folder: Path, cause: str) -> InputError:
    return InputError(f'model.path = "{folder}": the PEFT adapter {cause}')
