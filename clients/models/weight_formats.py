"""The formats of a quantised base: int8 with one scale a row, and NF4 with one scale for every 64 weights of a row.

Rows are the units that pruning removes: the outputs of a module whose outputs are cut, the inputs of one whose inputs
are cut. No scale spans two rows, so that cutting a quantised matrix equals quantising, dequantising and cutting, to the
bit. Both formats are a few operations of PyTorch, the same on every processor: W_q = level * scale in float32.
"""

from abc import ABC, abstractmethod
from functools import lru_cache

import torch
from torch.nn.functional import pad

_BLOCK = 64
_INT8_LEVELS = 127
# Quantiles of the normal distribution, as the authors' bitsandbytes has them.
_NF4_LEVELS = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


class WeightFormat(ABC):
    """Packs a float32 matrix [rows, width] into codes [rows, ...] and float32 scales [rows, ...], and back."""

    @abstractmethod
    def pack(self, matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes and scales of ``matrix``."""

    @abstractmethod
    def unpack(self, codes: torch.Tensor, scales: torch.Tensor, width: int) -> torch.Tensor:
        """W_q, float32 [rows, width], new memory."""

    @abstractmethod
    def row_bytes(self, width: int) -> int:
        """Bytes of a row's codes and scales."""


class Int8(WeightFormat):
    """Integers from -127 to 127 times the largest absolute value of their row / 127."""

    def pack(self, matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """int8 [rows, width], float32 [rows, 1]."""
        scales = matrix.abs().amax(dim=1, keepdim=True) / _INT8_LEVELS
        return (matrix / _divisor(scales)).round().to(torch.int8), scales

    def unpack(self, codes: torch.Tensor, scales: torch.Tensor, width: int) -> torch.Tensor:
        """See :meth:`WeightFormat.unpack`."""
        return codes.float().mul_(scales)

    def row_bytes(self, width: int) -> int:
        """One a weight, and a scale."""
        return width + 4


class Nf4(WeightFormat):
    """4-bit NormalFloat of QLoRA (Dettmers et al., arXiv 2305.14314), without double quantisation of the scales.

    Each weight is the nearest of 16 levels, times the largest absolute value of its block of 64. The same as
    ``bitsandbytes.functional.quantize_4bit`` of the rows, padded with zeros to whole blocks.
    """

    def pack(self, matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 [rows, blocks * 32], two weights a byte, the first in its upper half; float32 [rows, blocks]."""
        rows, width = matrix.shape
        blocks = pad(matrix, (0, -width % _BLOCK)).unflatten(1, (-1, _BLOCK))
        scales = blocks.abs().amax(dim=2)
        levels = torch.tensor(_NF4_LEVELS, device=matrix.device)
        shares = (blocks / _divisor(scales)[..., None]).contiguous()
        nearest = torch.bucketize(shares, (levels[1:] + levels[:-1]) / 2)
        high, low = nearest.reshape(rows, -1, 2).to(torch.uint8).unbind(-1)
        return high * 16 + low, scales

    def unpack(self, codes: torch.Tensor, scales: torch.Tensor, width: int) -> torch.Tensor:
        """See :meth:`WeightFormat.unpack`."""
        both = _pairs(codes.device).index_select(0, codes.flatten().int())
        whole = both.view(torch.float32).view(*scales.shape, _BLOCK).mul_(scales[..., None]).flatten(1)
        return whole if whole.shape[1] == width else whole[:, :width].contiguous()

    def row_bytes(self, width: int) -> int:
        """Half of one a weight, and a scale for each block."""
        blocks = -(-width // _BLOCK)
        return blocks * (_BLOCK // 2 + 4)


FORMATS: dict[str, WeightFormat] = {"int8": Int8(), "nf4": Nf4()}
"""By the value of ``model.quantization``."""


def _divisor(scales: torch.Tensor) -> torch.Tensor:
    """``scales``, and 1 in place of 0, where there are only zeros to divide."""
    return torch.where(scales > 0, scales, 1.0)


@lru_cache
def _pairs(device: torch.device) -> torch.Tensor:
    """The two levels of every byte, as one number of 64 bits: a quarter of the time of looking each up."""
    levels, byte = torch.tensor(_NF4_LEVELS), torch.arange(256)
    return torch.stack([levels[byte // 16], levels[byte % 16]], dim=1).view(torch.int64).flatten().to(device)
