"""The last layer of an encoder, computed only for the token that a classification head reads.

BERT's pooler and the heads of RoBERTa and DistilBERT read the first token of a text. The last layer's outputs for other
tokens affect neither loss nor gradient. Their keys and values are needed, their queries and later operations are not.
"""

from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import proxy

import torch
from transformers import PreTrainedModel

from slimfed.clients.models.families import FAMILIES
from slimfed.clients.structure import Blueprint

_Layer = Callable[..., torch.Tensor]


def read_first_token(model: PreTrainedModel, blueprint: Blueprint) -> None:
    """Shorten the last layer of ``model`` if its head reads the first token alone; other models are unchanged.

    The same layers and modules are called, so adapters, masks and hooks keep working. Code that needs all tokens of a
    module's input must not be used with it. A shortened model must not be copied.
    """
    kind = _FIRST_TOKEN_LAYERS.get(type(model).__name__)
    if kind is None:
        return
    layers = model.base_model.get_submodule(FAMILIES[blueprint.family].layers)
    last = list(layers.children())[-1]
    # A reference cycle would keep all tensors until Python's garbage collection.
    last.forward = partial(kind, proxy(last))


def _bert(
    layer: Any, states: torch.Tensor, attention_mask: torch.Tensor | None = None, *_others: Any, **_options: Any
) -> torch.Tensor:
    """[rows, length, width] -> [rows, 1, width], as ``BertLayer`` and ``RobertaLayer`` do it."""
    own, first = layer.attention.self, states[:, :1]
    context = _attend(own.query(first), own.key(states), own.value(states), attention_mask, own.attention_head_size)
    attended = layer.attention.output(context, first)
    return layer.output(layer.intermediate(attended), attended)


def _distilbert(
    layer: Any, states: torch.Tensor, attention_mask: torch.Tensor | None = None, *_others: Any, **_options: Any
) -> torch.Tensor:
    """[rows, length, width] -> [rows, 1, width], as ``TransformerBlock`` of DistilBERT does it."""
    own, first = layer.attention, states[:, :1]
    context = _attend(own.q_lin(first), own.k_lin(states), own.v_lin(states), attention_mask, own.attention_head_size)
    attended = layer.sa_layer_norm(own.out_lin(context) + first)
    return layer.output_layer_norm(layer.ffn(attended) + attended)


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, size: int
) -> torch.Tensor:
    """Attention of one token to all: [rows, 1, heads * size], with [rows, length, heads * size] twice, gives the first.

    ``mask``: [rows, 1, any, length], added, or true where a token is seen.
    """
    query, key, value = (part.unflatten(-1, (-1, size)).transpose(1, 2) for part in (query, key, value))
    weights = query @ key.mT
    weights = weights.to(torch.promote_types(weights.dtype, torch.float32)) * size**-0.5
    if mask is not None:
        seen = mask[:, :, :1]
        weights = weights.masked_fill(~seen, -torch.inf) if seen.dtype == torch.bool else weights + seen
    return (weights.softmax(-1).to(value.dtype) @ value).transpose(1, 2).flatten(2)


_FIRST_TOKEN_LAYERS: dict[str, _Layer] = {
    "BertForSequenceClassification": _bert,
    "RobertaForSequenceClassification": _bert,
    "DistilBertForSequenceClassification": _distilbert,
}
