"""Small operations on tensors that many modules share."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import nn

_FETCHERS = 8


def gradient(parameter: nn.Parameter) -> torch.Tensor:
    """Gradient of the last backward pass; zeros if there was none."""
    return parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)


def to_array(tensor: torch.Tensor) -> np.ndarray:
    """A float32 copy in main memory."""
    return tensor.detach().to("cpu", torch.float32, copy=True).numpy()


def to_host(tensor: torch.Tensor) -> np.ndarray:
    """A float32 tensor [entries], not shared with other code, as an array in main memory."""
    if not tensor.is_cuda:
        return tensor.numpy()
    # Allocating takes longer than copying: NumPy's memory has large pages, which several threads allocate.
    result = np.empty(tensor.shape, dtype=np.float32)
    with ThreadPoolExecutor(_FETCHERS) as fetchers:
        list(fetchers.map(lambda part: part.fill(0.0), np.array_split(result, _FETCHERS)))
    torch.from_numpy(result).copy_(tensor)
    return result
