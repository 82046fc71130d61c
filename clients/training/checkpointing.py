"""Checkpointing: activations that are recomputed for gradients instead of kept in memory."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

_ACTIVATIONS = ("transformers.activations", "torch.nn.modules.activation")


def recompute_layers(model: PreTrainedModel) -> None:
    """Recompute every layer of ``model`` in training, in place (Chen et al., arXiv 1604.06174; PyTorch's checkpoint).

    Results are the same; a training step has one more pass through the layers.
    """
    model.activation_checkpointing_enable()
    model.disable_input_require_grads()  # meant for reentrant checkpointing; here it adds an unused gradient
    model.config.use_cache = False  # a layer that runs twice would fill a cache twice


class ActivationFunctions:
    """The activation functions of one model, whose outputs are not kept for the backward pass but computed again.

    The FFN's down projection needs the function's output for the gradient of its factor A, and the function keeps its
    input in any case. This saves a quarter of a BERT layer's kept activations, for the time of one elementwise
    function. Results are the same to the bit.
    """

    def __init__(self, model: nn.Module) -> None:
        self._made: dict[int, _Made] | None = None
        for module in model.modules():
            if type(module).__module__ in _ACTIVATIONS and not any(True for _ in module.parameters()):
                module.register_forward_hook(self._note)

    @contextmanager
    def recomputed(self) -> Iterator[None]:
        """Context in which a forward pass keeps only the inputs of these functions."""
        self._made = {}
        try:
            with torch.autograd.graph.saved_tensors_hooks(self._pack, _unpack):
                yield
        finally:
            self._made = None

    def _note(self, module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        if self._made is not None and torch.is_grad_enabled():
            function = type(module).forward.__get__(module)  # without hooks, this one among them
            self._made[_address(output)] = _Made(weakref.ref(output), function, inputs[0].detach())

    def _pack(self, tensor: torch.Tensor) -> "torch.Tensor | _Recipe":
        made = (self._made or {}).get(_address(tensor))
        # An address identifies the output only while the output exists.
        if made is None or made.output() is None or tensor.numel() != made.source.numel():
            return tensor
        kind = tensor.device.type
        mixed = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
        return _Recipe(made.function, made.source, tuple(tensor.shape), tensor.stride(), mixed)


@dataclass(frozen=True)
class _Made:
    output: "weakref.ref[torch.Tensor]"
    function: Any
    source: torch.Tensor


@dataclass(frozen=True)
class _Recipe:
    """``function(source)``, in the shape of the kept tensor, under the autocast of the forward pass."""

    function: Any
    source: torch.Tensor
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    mixed: tuple[bool, torch.dtype]


def _unpack(kept: "torch.Tensor | _Recipe") -> torch.Tensor:
    if isinstance(kept, torch.Tensor):
        return kept
    enabled, dtype = kept.mixed
    with torch.no_grad(), torch.autocast(kept.source.device.type, dtype, enabled=enabled):
        return kept.function(kept.source).as_strided(kept.shape, kept.stride)


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
