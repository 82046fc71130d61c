"""Next-token predictions of a decoder, without the logits of all tokens at once.

Logits are computed for positions with a target only, and for a limited number of them at a time: those of 4,096 tokens
of a vocabulary of 262,144 take 4 GB, several times.
"""

from collections.abc import Mapping
from typing import TypeGuard

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from slimfed.clients.evaluation.batch_size import logit_rows
from slimfed.clients.models.families import ENCODERS, FAMILIES, without_cache

_IGNORED = -100


def has_split_head(model: nn.Module) -> TypeGuard[PreTrainedModel]:
    """True if the model's logits are its output embedding of its last hidden states, as in every known decoder."""
    if not isinstance(model, PreTrainedModel) or model.config.model_type not in FAMILIES.keys() - ENCODERS:
        return False
    return model.get_output_embeddings() is not None


def needs_whole_logits(model: nn.Module) -> TypeGuard[PreTrainedModel]:
    """True for a model of transformers that cannot be split in front of its head, such as one of an unknown family."""
    return isinstance(model, PreTrainedModel) and not has_split_head(model)


def targets(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where a token is to be predicted, and the tokens: places int64 [targets] in the flattened [rows, length].

    ``labels``: int64 [rows, length], those not in the loss are -100. Each is predicted from the position before.
    """
    places = (labels[:, 1:] != _IGNORED).nonzero()
    wanted = labels[places[:, 0], places[:, 1] + 1]
    return places[:, 0] * labels.shape[1] + places[:, 1], wanted


def predictions(
    model: nn.Module, inputs: Mapping[str, torch.Tensor], labels: torch.Tensor, devices: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of every target in nats, float32 [devices, targets], and whether it was the likeliest, bool alike.

    ``inputs``: those of the model, on its device, the rows of each device after those of the one before. ``labels``:
    int64 [rows, length] of one device, equal for all, on the host.
    """
    places, wanted = targets(labels)
    there = next(iter(inputs.values())).device
    every = (torch.arange(devices)[:, None] * labels.numel() + places).flatten().to(there)
    wanted = wanted.repeat(devices).to(there)
    if not has_split_head(model):
        logits = model(**inputs, **without_cache(model)).logits.flatten(0, 1)
        losses, right = scores(logits[every], wanted)
    else:
        states = model.base_model(**inputs, **without_cache(model)).last_hidden_state.flatten(0, 1)[every]
        losses, right = _in_chunks(model, states, wanted)
    return losses.reshape(devices, -1), right.reshape(devices, -1)


def scores(logits: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy, float32 [answers], and whether the likeliest answer is wanted, of logits [answers, classes]."""
    logits = logits.float()
    return cross_entropy(logits, wanted, reduction="none"), logits.argmax(-1) == wanted


def _in_chunks(model: PreTrainedModel, states: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As :func:`scores`, from hidden states [targets, width]."""
    size = logit_rows(model.config.get_text_config().vocab_size, states.device)
    parts = zip(states.split(size), wanted.split(size), strict=True)
    found = [scores(_logits(model, some), right) for some, right in parts]
    return torch.cat([losses for losses, _ in found]), torch.cat([right for _, right in found])


def _logits(model: PreTrainedModel, states: torch.Tensor) -> torch.Tensor:
    """Logits [targets, vocabulary]; Granite divides them, Gemma 2 and 3 may bend them: cap * tanh(logits / cap)."""
    config = model.config.get_text_config()
    logits: torch.Tensor = model.get_output_embeddings()(states)
    divisor = getattr(config, "logits_scaling", None)
    if divisor is not None:
        logits = logits / divisor
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)
