"""The sliced model as an ONNX graph for any runtime: batch and length are free, a decoder keeps its cache outside.

Inputs ``input_ids`` and ``attention_mask``, int64 [batch, length]; output ``logits``. A causal-lm also takes
``position_ids`` [batch, length] and, for every layer, ``past_key_values.I.key`` and ``.value``, float32 [batch, key
heads, past, width] (past = 0 to begin with), its mask covers past and new tokens, and it returns ``present.I.key`` and
``.value``. Layers may have different numbers of key heads. ``num_logits_to_keep``, int64 [], may be given to a
causal-lm: logits of so many last tokens alone; 0, the default, means all.

Written by tracing: for these models the graph of ``torch.export`` runs no faster, takes twenty times as long to make,
and its cache may not grow by a length of its own.
"""

import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel

from slimfed.clients.export import manifest as manifests
from slimfed.clients.export.atomic_folder import whole_folder
from slimfed.clients.export.label_only_encoder import LeanEncoder
from slimfed.clients.export.manifest import CARD, Manifest
from slimfed.clients.export.slim_model import SlimModel

GRAPH = "model.onnx"
KEEP = "num_logits_to_keep"
_OPSET = 17
_EXAMPLE = {"batch": 2, "length": 3, "past": 4}  # all different, and none 1, so that tracing fixes none of them


class Scorer(nn.Module):
    """``logits = scorer(input_ids, attention_mask)``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """One pass without a cache."""
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


class CachedDecoder(nn.Module):
    """``(logits, key 0, value 0, ...) = decoder(input_ids, attention_mask, position_ids, last, past key 0, ...)``."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        last: torch.Tensor,
        *past: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """One pass that takes the cache in and gives it back, longer by the new tokens.

        ``last``: int64 [], of how many last tokens logits are wanted; 0: of all.
        """
        places = torch.arange(input_ids.shape[1])
        places = places[places >= (last > 0) * (input_ids.shape[1] - last)]
        cache = DynamicCache()
        for layer in range(len(past) // 2):
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        out = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=places,
        )
        return (out.logits, *(part for layer in cache.layers for part in (layer.keys, layer.values)))


def save_onnx(slim: SlimModel, folder: Path, card: str) -> Manifest:
    """Write ``folder`` with the graph, the tokenizer, the configuration, manifest and card; complete or not at all."""
    with whole_folder(folder) as aside:
        write_graph(slim, aside / GRAPH)
        slim.model.config.save_pretrained(aside)
        slim.tokenizer.save_pretrained(aside)
        (aside / CARD).write_text(card, encoding="utf-8")
        return manifests.write(aside, slim.manifest.model_copy(update={"kind": "onnx"}))


def write_graph(slim: SlimModel, path: Path) -> None:
    """The graph alone."""
    model = slim.model.eval()
    if slim.manifest.task == "causal-lm":
        _trace(CachedDecoder(model), *_cached_example(model), path)
        _make_optional(path, KEEP)
    else:
        ids = torch.full((_EXAMPLE["batch"], _EXAMPLE["length"]), 3)
        axes = {name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask")}
        _trace(
            Scorer(LeanEncoder(model) if slim.manifest.lean else model),
            (ids, torch.ones_like(ids)),
            axes | {"logits": {0: "batch"}},
            path,
        )


def cache_names(layers: int, of: str) -> list[str]:
    """Names of the cache's tensors in order; ``of``: past_key_values or present."""
    return [f"{of}.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]


def _cached_example(model: PreTrainedModel) -> tuple[tuple[torch.Tensor, ...], dict[str, dict[int, str]]]:
    batch, length, past = _EXAMPLE.values()
    ids = torch.full((batch, length), 3)
    with torch.no_grad():
        layers = model(input_ids=ids, use_cache=True, past_key_values=DynamicCache()).past_key_values.layers
    cache = [torch.randn(batch, each.keys.shape[1], past, each.keys.shape[3]) for each in layers for _ in range(2)]
    mask, positions = torch.ones(batch, past + length, dtype=torch.int64), torch.arange(past, past + length)
    axes = {"input_ids": {0: "batch", 1: "length"}, "attention_mask": {0: "batch", 1: "total"}}
    axes |= {"position_ids": {0: "batch", 1: "length"}, KEEP: {}}
    axes |= {name: {0: "batch", 2: "past"} for name in cache_names(len(layers), "past_key_values")}
    axes |= {"logits": {0: "batch", 1: "kept"}}
    axes |= {name: {0: "batch", 2: "total"} for name in cache_names(len(layers), "present")}
    return (ids, mask, positions.expand(batch, length).contiguous(), torch.tensor(length - 1), *cache), axes


def _make_optional(path: Path, name: str) -> None:
    """Give an input of a graph the value 0, which holds where nobody gives another."""
    graph = onnx.load(path)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0), name))
    onnx.save(graph, path)


def _trace(module: nn.Module, example: tuple[torch.Tensor, ...], axes: dict[str, dict[int, str]], path: Path) -> None:
    names = list(axes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: shapes are checked by running the graph
        torch.onnx.export(
            module.eval(),
            example,
            str(path),
            input_names=names[: len(example)],
            output_names=names[len(example) :],
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,
        )
