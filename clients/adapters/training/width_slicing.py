"""Cutting the residual stream of a model to the dimensions that are kept, exactly."""

import math
from collections.abc import Mapping

import torch
from torch import nn
from transformers import PreTrainedModel

from slimfed.clients.adapters.training.residual_stream import ResidualStream
from slimfed.clients.adapters.width_decision import EMBEDDING
from slimfed.clients.models.linear import bias_of, set_weight, weight_of


def cut(model: PreTrainedModel, stream: ResidualStream, extra: Mapping[str, torch.Tensor]) -> PreTrainedModel:
    """Slice the model in place to the dimensions with z > 0; its function equals that of the masked model.

    M = diag(v) (I + W2 W1) is merged into the writing modules, E <- E M^T and W <- M W, then :func:`narrow_stream`.
    """
    with torch.no_grad():
        for name in stream.writers:
            _multiply(model.get_submodule(name), _through(extra, name))
        through = _through(extra, EMBEDDING)
        for name in stream.tables:
            table: torch.Tensor = model.get_submodule(name).weight
            model.get_submodule(name).weight = _frozen(table @ through.T.to(table.dtype))
    return narrow_stream(model, stream, torch.nonzero(extra["z"] > 0).reshape(-1))


def narrow_stream(model: PreTrainedModel, stream: ResidualStream, kept: torch.Tensor) -> PreTrainedModel:
    """Keep the dimensions ``kept`` of the stream, in place: outputs of writers, inputs of readers, and norms.

    RMSNorm took its mean over d and takes it over k: weight * sqrt(d / k), eps * d / k. Embedding and unembedding are
    no longer tied.
    """
    ratio = stream.width / len(kept)
    with torch.no_grad():
        for name in stream.readers:
            _put_linear(model.get_submodule(name), None, kept)
        for name in stream.writers:
            _put_linear(model.get_submodule(name), kept, None)
        for name in stream.tables:
            table = model.get_submodule(name)
            table.weight = _frozen(table.weight[:, kept])
            table.embedding_dim = len(kept)
        for name in (*stream.norms, *stream.rms):
            norm = model.get_submodule(name)
            scale = 1.0 if name in stream.norms else math.sqrt(ratio)
            norm.weight = _frozen(norm.weight[kept] * scale)
            if name in stream.rms:
                norm.variance_epsilon = norm.variance_epsilon * ratio
            else:
                norm.normalized_shape = (len(kept),)
                norm.bias = None if norm.bias is None else _frozen(norm.bias[kept])
    return model


def _through(extra: Mapping[str, torch.Tensor], place: str) -> torch.Tensor:
    """M = diag(v) (I + W2 W1), [d, d]."""
    down, up, scale = (extra[f"{place}/{part}"] for part in ("down", "up", "scale"))
    return scale[:, None] * (torch.eye(len(scale), dtype=up.dtype, device=up.device) + up @ down)


def _put_linear(module: nn.Module, rows: torch.Tensor | None, columns: torch.Tensor | None) -> None:
    """Keep rows (outputs) or columns (inputs) of a linear module; None: all."""
    weight, bias = weight_of(module), bias_of(module)
    weight = weight if rows is None else weight[rows]
    weight = weight if columns is None else weight[:, columns]
    set_weight(module, weight, None if rows is None or bias is None else bias[rows])


def _multiply(module: nn.Module, through: torch.Tensor) -> None:
    """W <- M W, bias <- M bias."""
    weight, bias = weight_of(module), bias_of(module)
    m = through.to(weight.dtype)
    set_weight(module, m @ weight, None if bias is None else m @ bias)


def _frozen(tensor: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach(), requires_grad=False)
