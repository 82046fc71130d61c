"""The forward pass of an encoder with a classification head, without operations that the label does not need.

The same weights and, to rounding, the same logits as transformers' own modules. Saved operations: queries, keys and
values are one product a layer; of the last layer, everything but keys and values is computed for the first token alone,
since poolers and heads of these families read no other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel

from slimfed.clients.models.families import FAMILIES


@dataclass(frozen=True)
class _Kind:
    """What ``models.families.Family`` does not say of an encoder: its norms, activation and head."""

    attention_norm: str
    output_norm: str
    activation: str
    head: tuple[str, ...]


_BERT = ("attention.output.LayerNorm", "output.LayerNorm", "intermediate.intermediate_act_fn")
_KINDS = {
    "bert": _Kind(*_BERT, head=("bert.pooler", "classifier")),
    "roberta": _Kind(*_BERT, head=("classifier",)),
    "distilbert": _Kind("sa_layer_norm", "output_layer_norm", "ffn.activation", head=("pre_classifier", "classifier")),
}


def can_be_lean(model: PreTrainedModel, task: str) -> bool:
    """True for classifiers of the encoder types supported here."""
    return task == "classification" and model.config.model_type in _KINDS


def lean(model: PreTrainedModel, wanted: bool) -> nn.Module:
    """``model`` as a :class:`LeanEncoder` if ``wanted``, which its manifest says, else as it is."""
    return LeanEncoder(model) if wanted else model


@dataclass(frozen=True)
class Scores:
    """Output of the model: float32 [batch, classes]."""

    logits: torch.Tensor


class LeanEncoder(nn.Module):
    """``model(input_ids, attention_mask).logits``, int64 [batch, length] both; texts are padded on the right."""

    def __init__(self, model: PreTrainedModel) -> None:
        """``model``: one that :func:`can_be_lean`, sliced or not, its adapter folded in; weights are shared with it."""
        super().__init__()
        name = model.config.model_type
        kind = _KINDS[name]
        self.embeddings: Any = model.base_model.embeddings
        layers = list(model.base_model.get_submodule(FAMILIES[name].layers).children())
        self.layers = nn.ModuleList([_Layer(layer, name, first_only=layer is layers[-1]) for layer in layers])
        self.head = nn.ModuleList([model.get_submodule(path) for path in kind.head])
        self.takes_vector = name == "distilbert"

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Scores:
        """One pass."""
        mask = None
        if torch.jit.is_tracing() or not bool(attention_mask.all()):
            mask = attention_mask.bool()[:, None, None]
        states = self.embeddings(input_ids=input_ids)
        for layer in self.layers:
            states = layer(states, mask)
        if not self.takes_vector:
            for part in self.head:
                states = part(states)
            return Scores(states)
        before, last = self.head
        return Scores(last(before(states[:, 0]).relu()))


class _Layer(nn.Module):
    """x <- norm(x + attention(x)); x <- norm(x + ffn(x)), of all tokens or of the first only; any number of heads."""

    def __init__(self, layer: nn.Module, name: str, first_only: bool) -> None:
        super().__init__()
        family, kind = FAMILIES[name], _KINDS[name]
        attention: Any = layer.get_submodule(family.query.rpartition(".")[0])
        self.head_width: int = attention.attention_head_size
        self.first_only = first_only
        query, key, value = (layer.get_submodule(path) for path in (family.query, family.key, family.value))
        self.query = query if first_only else None
        self.joined = _joined([key, value] if first_only else [query, key, value])
        self.output = layer.get_submodule(family.output)
        self.attention_norm = layer.get_submodule(kind.attention_norm)
        self.ffn = nn.Sequential(*(layer.get_submodule(path) for path in (family.up[0], kind.activation, family.down)))
        self.output_norm = layer.get_submodule(kind.output_norm)

    def forward(self, states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """From ``states`` [batch, length, width] to the next ones, [batch, length, width] or [batch, 1, width].

        ``mask``: bool [batch, 1, 1, length], False where there is no token; None: there are tokens everywhere.
        """
        parts = self.joined(states).chunk(2 if self.query else 3, -1)
        if self.query is not None:
            states = states[:, :1]
            parts = (self.query(states), *parts)
        query, key, value = (part.unflatten(-1, (-1, self.head_width)).transpose(1, 2) for part in parts)
        seen = scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)
        states = self.attention_norm(states + self.output(seen))
        found: torch.Tensor = self.output_norm(states + self.ffn(states))
        return found


def _joined(linears: Sequence[Any]) -> nn.Linear:
    """One linear whose outputs are those of all ``linears``, one after another."""
    joined = nn.Linear(1, 1)
    joined.weight = nn.Parameter(torch.cat([each.weight for each in linears]), requires_grad=False)
    joined.bias = nn.Parameter(torch.cat([each.bias for each in linears]), requires_grad=False)
    joined.out_features, joined.in_features = joined.weight.shape
    return joined
