"""A PEFT adapter as the start of a run: merged into its base when the base is loaded."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel

from slimfed.clients.models.adapter_config import WEIGHTS, refused


def merged(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """``model`` with the adapter of ``folder`` in its weights. Raises :class:`InputError` for what does not fit."""
    try:
        with torch.random.fork_rng(devices=[]):
            adapted = get_peft_model(model, LoraConfig.from_pretrained(str(folder)))
    except (ValueError, TypeError, KeyError, OSError, AttributeError) as error:
        raise refused(folder, f"does not fit its base: {' '.join(str(error).split())[:200]}") from None
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise refused(folder, f"has weights that cannot be read: {str(error)[:100]}") from None
    wanted = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    for name in sorted(wanted.keys() | tensors.keys()):
        if name not in tensors:
            raise refused(folder, f"lacks tensor {name}")
        if name not in wanted:
            raise refused(folder, f"has tensor {name}, for which its base has no place")
        if tensors[name].shape != wanted[name].shape:
            shapes = f"{list(tensors[name].shape)}, its base wants {list(wanted[name].shape)}"
            raise refused(folder, f"has tensor {name} of shape {shapes}")
    set_peft_model_state_dict(adapted, tensors)
    plain: PreTrainedModel = adapted.merge_and_unload(safe_merge=True)
    return plain
