"""How far each block turns the residual stream, as sums of angles over tokens."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from slimfed.clients.calibration.forward import Counted, forward_passes
from slimfed.clients.data.batching import Batch
from slimfed.clients.models.families import FAMILIES
from slimfed.clients.structure import Blueprint


@dataclass(frozen=True)
class StreamAngles:
    """``total``: float64 [blocks], the sum over ``tokens`` of the angle by which a block turns the stream; they add up.

    The angle is arccos(cos(h, h')) / pi, in [0, 1], with h the residual stream before the block and h' after it. A
    block that changes only the length of h has 0.
    """

    tokens: int
    total: np.ndarray

    def __add__(self, other: "StreamAngles") -> "StreamAngles":
        return StreamAngles(self.tokens + other.tokens, self.total + other.total)


def stream_angles(
    model: PreTrainedModel, blueprint: Blueprint, batches: Iterable[Batch], dtype: torch.dtype = torch.float32
) -> StreamAngles:
    """The angles of the blocks of ``model`` (sliced or not) over the counted tokens of ``batches``.

    The stream between attention and FFN is the input of the module that the model's family names (``Family.between``).
    After a norm that follows the sum (BERT), h' is what the norm puts out. Runs in evaluation mode and without
    gradients; the mode is restored. Raises ``ValueError`` without batches.
    """
    seen = _Seen(np.zeros(len(blueprint.blocks)))
    with _hooked(model, blueprint, seen):
        for counted in forward_passes(model, batches, dtype):
            seen.counted = counted
            seen.tokens += int(counted.mask.sum())
    if not seen.tokens:
        raise ValueError("no batches to calibrate on")
    return StreamAngles(seen.tokens, seen.total)


@contextmanager
def _hooked(model: PreTrainedModel, blueprint: Blueprint, seen: "_Seen") -> Iterator[None]:
    layers = {block.layer: block.name.rpartition(".")[0] for block in blueprint.blocks}
    hooks = []
    for number, name in layers.items():
        layer = model.get_submodule(name)
        places = {block.kind: index for index, block in enumerate(blueprint.blocks) if block.layer == number}
        angles = _LayerHooks(seen, places["attention"], places["ffn"])
        between = layer.get_submodule(FAMILIES[blueprint.family].stream_between(layer))
        hooks.append(layer.register_forward_pre_hook(angles.enter, with_kwargs=True))
        hooks.append(between.register_forward_pre_hook(angles.pass_middle))
        hooks.append(layer.register_forward_hook(angles.leave))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@dataclass
class _Seen:
    """State of the hooks: the tokens that the next pass counts, and the sums so far."""

    total: np.ndarray
    tokens: int = 0
    counted: Counted | None = None

    def states(self, stream: torch.Tensor) -> torch.Tensor:
        """The stream at the counted tokens, float64 [tokens, width]."""
        assert self.counted is not None, "what counts is said before the forward pass"
        return self.counted.of(stream)


@dataclass
class _LayerHooks:
    """The hooks of one layer, whose attention and FFN have these places among the blocks."""

    seen: _Seen
    attention: int
    ffn: int
    before: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    def enter(self, _module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Note the stream before the layer."""
        self.before = self.seen.states(inputs[0] if inputs else named["hidden_states"])

    def pass_middle(self, _module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        """Add the angles of the attention, and note the stream after it."""
        middle = self.seen.states(inputs[0])
        self.seen.total[self.attention] += _angles(self.before, middle)
        self.before = middle

    def leave(self, _module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        """Add the angles of the FFN."""
        after = self.seen.states(output[0] if isinstance(output, tuple) else output)
        self.seen.total[self.ffn] += _angles(self.before, after)
        self.before = torch.empty(0)


def _angles(h: torch.Tensor, after: torch.Tensor) -> float:
    """The sum over tokens of the angles between two states, in units of pi."""
    cosine = (h * after).sum(-1) / (h.norm(dim=-1) * after.norm(dim=-1)).clamp_min(1e-300)
    return float(cosine.clamp(-1.0, 1.0).arccos().sum()) / np.pi
