"""Sizes of the batches of an evaluation: as large as makes a processor fast, if the free memory suffices.

Sizes are powers of two that free memory only lowers. While there is enough of it they depend on the device alone, so
that an evaluation repeats to the bit.
"""

import math
from dataclasses import dataclass

import psutil
import torch
from torch import nn
from transformers import PreTrainedModel

from slimfed.clients.models.attention import ENCODER_ATTENTION
from slimfed.clients.processors import processor_count

_MB = 2**20
_SPARE = 0.5
_UNKNOWN_BYTES = 64 * 2**10
_COPIES = 3


@dataclass(frozen=True)
class Fastest:
    """Sizes beyond which a kind of device is no faster (benchmarks/evaluation_speed.py).

    ``tokens`` in a pass over texts; ``rows`` written at once by a greedy decoder; ``logit_bytes`` of float32 logits.
    """

    tokens: int
    rows: int
    logit_bytes: int


FASTEST = {"cpu": Fastest(4096, 64, 64 * _MB), "cuda": Fastest(32768, 512, 1024 * _MB)}
"""By type of device; others count as "cpu"."""


def fastest(device: torch.device) -> Fastest:
    """The sizes of a kind of device."""
    return FASTEST.get(device.type, FASTEST["cpu"])


def free_bytes(device: torch.device) -> int:
    """Memory in bytes that this process may still take on ``device``.

    A GPU: what is free and what PyTorch's cache holds. A CPU: what is available, by this process's share of the
    processors, as others may belong to workers that take their part.
    """
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    share = min(1.0, torch.get_num_threads() / processor_count())
    return int(psutil.virtual_memory().available * share)


def batch_tokens(model: nn.Module, device: torch.device, longest: int, logits: int = 0) -> int:
    """Tokens in a batch of texts of at most ``longest`` tokens, for a pass without gradients; at least 1.

    ``logits``: numbers of logits that the pass makes of each token; 0 if they are made in chunks (:func:`logit_rows`).
    """
    return _fitting(fastest(device).tokens, device, token_bytes(model, longest) + _COPIES * 4 * logits)


def logit_rows(vocabulary: int, device: torch.device) -> int:
    """Positions whose logits are computed at once; at least 1."""
    wanted = max(1, fastest(device).logit_bytes // (4 * vocabulary))
    return _fitting(2 ** int(math.log2(wanted)), device, _COPIES * 4 * vocabulary)


def rows_to_complete(model: nn.Module, device: torch.device, longest: int, new: int) -> int:
    """Prompts of at most ``longest`` tokens that are continued at once by ``new`` tokens; at least 1.

    Each needs its keys and values until the end, its part of the first pass, and the logits of a step.
    """
    vocabulary = _number(model, "vocab_size", 0)
    each = (longest + new) * cache_bytes(model) + longest * token_bytes(model, longest) + _COPIES * 4 * vocabulary
    return _fitting(fastest(device).rows, device, each)


def token_bytes(model: nn.Module, longest: int) -> int:
    """Memory of one token of texts of ``longest`` tokens in the widest layer of a pass without gradients."""
    width = _number(model, "hidden_size", 0)
    if not width:
        return _UNKNOWN_BYTES
    inner = _number(model, "intermediate_size", 4 * width)
    numbers = 8 * width + _COPIES * inner
    if getattr(_config(model), "_attn_implementation", None) in ("eager", ENCODER_ATTENTION):
        numbers += _COPIES * longest * _number(model, "num_attention_heads", 1)
    return 4 * numbers


def cache_bytes(model: nn.Module) -> int:
    """Memory of one token's keys and values in all layers; twice that of the cache, which is copied when it grows."""
    width, heads = _number(model, "hidden_size", 1024), _number(model, "num_attention_heads", 1)
    size = _number(model, "head_dim", width // heads)
    kept = _number(model, "num_key_value_heads", heads) * size
    return 2 * 4 * 2 * kept * _number(model, "num_hidden_layers", 12)


def _fitting(wanted: int, device: torch.device, each: int) -> int:
    """``wanted`` items of ``each`` bytes, or the largest power of two below that fits into the spare memory."""
    fit = max(1, int(_SPARE * free_bytes(device)) // max(1, each))
    return min(wanted, 2 ** (fit.bit_length() - 1))


def _config(model: nn.Module) -> object | None:
    return model.config.get_text_config() if isinstance(model, PreTrainedModel) else None


def _number(model: nn.Module, name: str, default: int) -> int:
    """A number of the model's configuration."""
    value = getattr(_config(model), name, None)
    return int(value) if isinstance(value, int) else default
