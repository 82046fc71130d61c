"""Slicing a model to the kept units of a structure."""

import copy

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention
from transformers.models.opt.modeling_opt import OPTAttention

from slimfed.clients.models.linear import bias_of, set_weight, shape_of, weight_of
from slimfed.clients.models.quantised_linear import QuantisedLinear
from slimfed.clients.structure import Structure


def slice_model(model: PreTrainedModel, structure: Structure) -> PreTrainedModel:
    """A physically smaller copy of an unpruned ``model``; tensors that are not sliced are shared.

    Different layers may keep different numbers of heads and channels; attention infers its heads from the width of the
    projections, so forward passes and generation with a cache work. Quantised weights stay quantised, cut exactly.
    ``model`` itself is not changed.
    """
    shared: list[torch.Tensor] = [*model.parameters(), *model.buffers()]
    sliced = copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
    for (name, side), kept in structure.indices().items():
        _cut(sliced.get_submodule(name), side, torch.from_numpy(kept))
    for module in sliced.modules():
        if isinstance(module, GPT2Attention):  # these two families store their number of heads
            module.split_size = shape_of(module.c_attn)[0] // 3
            module.num_heads = module.split_size // module.head_dim
        elif isinstance(module, OPTAttention):
            module.num_heads = module.q_proj.out_features // module.head_dim
    return sliced


def _cut(module: nn.Module, side: str, kept: torch.Tensor) -> None:
    """Keep the given outputs or inputs of a linear module, in place."""
    axis = 1 if side == "in" else 0
    if len(kept) == shape_of(module)[axis]:
        return
    if isinstance(module, QuantisedLinear):
        module.keep(side, kept.to(module.codes.device))
        return
    weight, bias = weight_of(module), bias_of(module)
    kept = kept.to(weight.device)
    cut_bias = bias.index_select(0, kept) if side == "out" and bias is not None else None
    set_weight(module, weight.index_select(axis, kept), cut_bias)
