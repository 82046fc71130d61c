"""Cutting a model down to the units a structure keeps."""

import copy

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention
from transformers.pytorch_utils import Conv1D

from slimfed.clients.structure import Structure


def slice_model(model: PreTrainedModel, structure: Structure) -> PreTrainedModel:
    """A physically smaller copy of an unpruned ``model``; every parameter and buffer that is not cut is shared with it.

    Different layers may keep different numbers of heads and channels; attention infers its heads from the width of the
    projections, so forward passes and generation with a cache go on working. ``model`` itself is not changed.
    """
    shared: list[torch.Tensor] = [*model.parameters(), *model.buffers()]
    sliced = copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
    for (name, side), kept in structure.indices().items():
        _cut(sliced.get_submodule(name), side, torch.from_numpy(kept))
    for module in sliced.modules():
        if isinstance(module, GPT2Attention):  # the only family that stores the width of its fused projection
            module.split_size = module.c_attn.nf // 3
            module.num_heads = module.split_size // module.head_dim
    return sliced


def _cut(module: nn.Module, side: str, kept: torch.Tensor) -> None:
    """Keep the given outputs or inputs of a linear module, in place."""
    transposed = isinstance(module, Conv1D)
    axis = int((side == "in") != transposed)
    weight: torch.Tensor = module.weight  # type: ignore[assignment]
    if len(kept) == weight.shape[axis]:
        return
    kept = kept.to(weight.device)
    module.weight = nn.Parameter(weight.detach().index_select(axis, kept), requires_grad=False)
    if side == "out" and module.bias is not None:
        module.bias = nn.Parameter(module.bias.detach().index_select(0, kept), requires_grad=False)  # type: ignore
    rows, columns = module.weight.shape
    if transposed:
        module.nx, module.nf = rows, columns  # type: ignore[assignment]
    else:
        module.out_features, module.in_features = rows, columns  # type: ignore[assignment]
