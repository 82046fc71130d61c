"""Linear modules: ``nn.Linear`` and GPT-2's ``Conv1D``, which stores its weight transposed.

In all other modules of slimfed a weight is [out, in].
"""

from typing import TypeGuard

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D


def is_linear(module: nn.Module) -> TypeGuard[nn.Linear | Conv1D]:
    """True for a module that computes y = W x + bias."""
    return isinstance(module, nn.Linear | Conv1D)


def is_transposed(module: nn.Module) -> bool:
    """True if ``module`` stores its weight as [in, out]."""
    return isinstance(module, Conv1D)


def oriented(module: nn.Module, matrix: torch.Tensor) -> torch.Tensor:
    """A view of ``matrix``, stored as ``module`` stores its weight, as [out, in]; or the reverse."""
    return matrix.T if is_transposed(module) else matrix


def weight_of(module: nn.Module) -> torch.Tensor:
    """The weight of ``module`` as [out, in], a view; of a quantised one dequantised, new memory."""
    weight: torch.Tensor = module.weight  # type: ignore[assignment]
    return oriented(module, weight)


def bias_of(module: nn.Module) -> torch.Tensor | None:
    """The bias [out]; None if there is none."""
    bias: torch.Tensor | None = module.bias  # type: ignore[assignment]
    return bias


def shape_of(module: nn.Module) -> tuple[int, int]:
    """(out, in)."""
    if "weight" not in module._parameters:  # computed, which takes time
        return module.out_features, module.in_features  # type: ignore[return-value]
    rows, columns = weight_of(module).shape
    return rows, columns


def place_of(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and floating-point type of the module's tensors; no weight is computed."""
    held = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    first = next(tensor for tensor in held if tensor.is_floating_point())
    return first.device, first.dtype


def set_weight(module: nn.Module, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
    """Give ``module`` the frozen ``weight`` [out, in], of any size, and ``bias`` [out], in place; None: the bias stays.

    The parameters are replaced, not written to, so that modules that share them are unchanged.
    """
    module.weight = nn.Parameter(oriented(module, weight.detach()).contiguous(), requires_grad=False)
    if bias is not None:
        module.bias = nn.Parameter(bias.detach(), requires_grad=False)
    rows, columns = weight.shape
    if is_transposed(module):
        module.nf, module.nx = rows, columns  # type: ignore[assignment]
    else:
        module.out_features, module.in_features = rows, columns  # type: ignore[assignment]
