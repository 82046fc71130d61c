"""Small things that are done to tensors in many places."""

import numpy as np
import torch
from torch import nn


def gradient(parameter: nn.Parameter) -> torch.Tensor:
    """Gradient of the last backward pass; zeros if there was none."""
    return parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)


def to_array(tensor: torch.Tensor) -> np.ndarray:
    """A float32 copy in main memory."""
    return tensor.detach().to("cpu", torch.float32, copy=True).numpy()


def to_host(tensor: torch.Tensor) -> np.ndarray:
    """A contiguous tensor that nobody else holds as an array in main memory."""
    if not tensor.is_cuda:
        return tensor.numpy()
    # NumPy's memory comes in large pages, which are there several times as soon as PyTorch's small ones.
    result = np.empty(tensor.shape, dtype=torch.empty((), dtype=tensor.dtype).numpy().dtype)
    torch.from_numpy(result).copy_(tensor)
    return result
