"""Quantising the frozen base of a run, and making plain weights of it again for evaluation and export."""

from collections.abc import Iterator

import torch
from transformers import PreTrainedModel

from slimfed.clients.models.discovery import discover
from slimfed.clients.models.quantised_linear import QuantisedLinear


def quantise_base(model: PreTrainedModel, format: str) -> None:
    """Hold the linear modules of the blocks of ``model`` as ``format`` ("int8" or "nf4"), in place.

    Embeddings, norms, biases and the head keep their type. Every process gets the same weights from the same base. The
    model must be on the CPU. Raises :class:`InputError` for a model whose structure is not understood.
    """
    sides = {cut.module: cut.side for block in discover(model).blocks for cut in block.cuts}
    for name, side in sides.items():
        model.set_submodule(name, QuantisedLinear(model.get_submodule(name), side, format))


def dequantise_linears(model: PreTrainedModel) -> PreTrainedModel:
    """Replace the quantised modules of ``model`` by plain ones with the same weights W_q, in place; returns it."""
    for name, module in quantised_linears(model):
        model.set_submodule(name, module.plain())
    return model


def quantised_linears(model: PreTrainedModel) -> list[tuple[str, QuantisedLinear]]:
    """Names and modules; none if the base is not quantised."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, QuantisedLinear)]


def named_weights(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """All parameters by name in sorted order, as :func:`dequantise_linears` would leave them; one at a time."""
    quantised = {f"{name}.weight": module for name, module in quantised_linears(model)}
    parameters = dict(model.named_parameters())
    for name in sorted({*parameters, *quantised}):
        if name in quantised:
            weight = quantised[name].weight
            yield name, weight.T if quantised[name].was_transposed else weight
        else:
            yield name, parameters[name]
