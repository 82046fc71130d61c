"""Choice of the fastest attention.

In bf16 on a CPU, encoders use the attention of this module, decoders the eager one of transformers: on a CPU the
gradient of PyTorch's fused attention takes 30 times as long in bf16 as in fp32. The softmax runs in fp32, which is
several times as fast as in bf16 (short rows of bf16 are not vectorised) and rounds less.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

ENCODER_ATTENTION = "slimfed_encoder"
"""Name for ``set_attn_implementation``."""

# On an H100, cuDNN's kernel takes 1.5 to 1.6 times as long up to 64 tokens (benchmarks/attention_kernels.py), and 0.8
# to 0.9 times for 80 and more.
_SHORT = 64
_IN_ORDER = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]


def short_attention(ids: torch.Tensor) -> AbstractContextManager[None]:
    """For texts ``ids`` [rows, length]: a context that selects the faster kernel if they are short and on a GPU."""
    if not ids.is_cuda or ids.shape[1] > _SHORT:
        return nullcontext()
    return sdpa_kernel(_IN_ORDER, set_priority=True)


def encoder_attention(
    _module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **_options: object,
) -> tuple[torch.Tensor, None]:
    """Softmax(scaling * query key^T + mask) value, as transformers calls it.

    ``query`` [rows, heads, some, size]; ``key`` and ``value`` [rows, heads, length, size]; ``attention_mask`` is added,
    [rows or 1, 1, some or 1, length]. Gives [rows, some, heads, size], without dropout.
    """
    weights = query @ key.mT
    weights = weights.to(torch.promote_types(weights.dtype, torch.float32))
    weights = weights * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if attention_mask is not None:
        weights = weights + attention_mask
    return (weights.softmax(-1).to(value.dtype) @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register(ENCODER_ATTENTION, encoder_attention)
AttentionMaskInterface.register(ENCODER_ATTENTION, eager_mask)
