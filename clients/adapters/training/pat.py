"""Training of PAT: LoRA through PEFT, with modules and masked norms hooked into the residual stream."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters.training.adapted import AdaptedModel
from slimfed.clients.adapters.training.base import Companion
from slimfed.clients.adapters.training.lora import LoraTraining
from slimfed.clients.adapters.training.merging import fold
from slimfed.clients.adapters.training.protocols import Adapted
from slimfed.clients.adapters.training.residual_stream import ResidualStream, find_stream
from slimfed.clients.adapters.training.width_slicing import cut
from slimfed.clients.adapters.width_decision import EMBEDDING, is_decided, kept_width
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.clients.spec import AdapterSpec, TaskSpec
from slimfed.clients.structure import Blueprint, Structure

_LARGEST_ARGUMENT = 10.0
_MASK = "slimfed_width"
_FINE = 1_000_000  # assumed steps up to the milestone if only the progress is known

Extra = Mapping[str, nn.Parameter]


class PatTraining(LoraTraining):
    """LoRA, and HSM(x) = v * m * (x + W2 W1 x) behind the embedding and every module that writes into the stream."""

    def check(self, model: PreTrainedModel, blueprint: Blueprint) -> None:
        """Raise ``InputError`` for a model whose width cannot be pruned."""
        find_stream(model, blueprint)

    def attach(self, model: PreTrainedModel, structure: Structure, adapter: Adapter, task: TaskSpec) -> AdaptedModel:
        """LoRA through PEFT, with the modules hooked behind it."""
        extra = {
            name: nn.Parameter(torch.from_numpy(value.copy()).to(model.device, model.dtype))
            for name, value in adapter.extra.items()
        }
        stream = find_stream(model, structure.blueprint)
        plain = super().attach(model, structure, adapter, task)
        _install(model, stream, extra, lead=False)
        return replace(plain, extra=extra, spares=self.undecayed)

    def install(self, base: PreTrainedModel, model: PreTrainedModel, blueprint: Blueprint, extra: Extra) -> None:
        """Hook the modules into a cohort's model."""
        _install(model, find_stream(base, blueprint), extra, lead=True)

    def undecayed(self, name: str) -> bool:
        """True for v, z and the progress, which is not trained at all."""
        return not name.endswith(("/down", "/up"))

    def companion(self, adapted: Adapted, task: TaskSpec, round: int, ranks: Sequence[int]) -> Companion:
        """The update of the mask, and the losses on W1 and z."""
        mask = adapted.model.get_submodule(_MASK)
        assert isinstance(mask, Mask)
        return _Course(mask, adapted.extra, adapted.lead, task, round)

    def build(
        self, base: PreTrainedModel, structure: Structure, adapter: Adapter, spec: AdapterSpec
    ) -> PreTrainedModel:
        """The narrow model once the width is decided; until then, the wide one with its soft mask."""
        stream = find_stream(base, structure.blueprint)
        model = fold(slice_model(base, structure), adapter, spec.scaling)
        extra = {name: torch.from_numpy(value.copy()).to(model.device) for name, value in adapter.extra.items()}
        if is_decided(adapter):
            return cut(model, stream, extra)
        _install(
            model, stream, {name: nn.Parameter(value, requires_grad=False) for name, value in extra.items()}, lead=False
        )
        return model


class Mask(nn.Module):
    """m [devices, d] from z [devices, d]. Its buffers are written in place, so that steps can be recorded."""

    def __init__(self, z: Callable[[], torch.Tensor], hard: bool, device: torch.device) -> None:
        super().__init__()
        self.z = z
        self.hard = hard
        for name in ("tau", "bias", "pull"):
            self.register_buffer(name, torch.zeros((), device=device), persistent=False)

    def at(self, step: float, steps: float) -> None:
        """Move to step t of T ``steps``: tau = 1 / (1 - ln t / ln T), bias = max(1/2 - t / T, 0)."""
        steps = max(steps, 2.0)
        step = min(step, steps)
        self.get_buffer("tau").fill_(1 / (1 - math.log(max(step, 1.0)) / math.log(steps) + 1e-6))
        self.get_buffer("bias").fill_(max(0.5 - step / steps, 0.0))
        self.get_buffer("pull").fill_(step / steps)

    def forward(self) -> torch.Tensor:
        """Of the type of z."""
        z = self.z()
        if self.hard:
            return (z > 0).to(z.dtype)
        argument = (self.get_buffer("tau") * z).clamp(min=-_LARGEST_ARGUMENT)
        return torch.sigmoid(argument) + self.get_buffer("bias")


@dataclass(frozen=True)
class _Course(Companion):
    """Updates the mask at every step, and adds the losses on z and W1."""

    mask: Mask
    extra: Extra
    lead: tuple[int, ...]
    task: TaskSpec
    round: int

    def begin(self, step: int) -> None:
        """Called before local step ``step``."""
        training = self.task.training
        done = (self.round - 1) * training.local_steps + step
        self.mask.at(done, self.task.adapter.milestone * training.rounds * training.local_steps)

    def penalty(self) -> torch.Tensor:
        """[*lead]: mean (W1 W1^T - I)^2 over all places, and the distance of z from its target values."""
        loss = torch.stack([_identity(p) for name, p in self.extra.items() if name.endswith("/down")]).sum(0)
        if self.mask.hard:
            return loss
        z = self.extra["z"]
        kept = kept_width(z.shape[-1], self.task.adapter.target_sparsity)
        side = torch.full_like(z, -0.5).scatter(-1, z.detach().topk(kept, dim=-1).indices, 0.5)
        square = (z - side).square()
        above = torch.where(side > 0, square, 0.0).sum(-1) / kept
        below = torch.where(side < 0, square, 0.0).sum(-1) / max(z.shape[-1] - kept, 1)
        return loss + self.mask.get_buffer("pull") * (above + below)


def _identity(down: torch.Tensor) -> torch.Tensor:
    """mean (W1 W1^T - I)^2, [...]."""
    square = down @ down.mT - torch.eye(down.shape[-2], dtype=down.dtype, device=down.device)
    return square.square().mean((-2, -1))


def _install(model: PreTrainedModel, stream: ResidualStream, extra: Extra, lead: bool) -> None:
    """Hook the modules into ``model``, and masked norms over its own; ``lead``: ``extra`` has an axis of devices."""

    def of(name: str) -> torch.Tensor:
        return extra[name] if lead else extra[name][None]

    progress = float(extra["progress"].detach().flatten()[0])
    mask = Mask(lambda: of("z"), progress >= 1, model.device)
    mask.at(progress * _FINE, _FINE)
    model.add_module(_MASK, mask)

    def sparsified(place: str) -> Callable[[torch.Tensor], torch.Tensor]:
        def apply(x: torch.Tensor) -> torch.Tensor:
            down, up, scale = (of(f"{place}/{part}").to(x.dtype) for part in ("down", "up", "scale"))
            m = mask().to(x.dtype)
            rows = x.reshape(len(m), -1, x.shape[-1])
            rows = rows + torch.bmm(torch.bmm(rows, down.mT), up.mT)
            return (rows * (scale * m)[:, None]).reshape(x.shape)

        return apply

    for name in stream.writers:
        model.get_submodule(name).register_forward_hook(_after(sparsified(name)))
    entry = model.get_submodule(stream.entry)
    if stream.entry in stream.norms:
        entry.register_forward_pre_hook(_before(sparsified(EMBEDDING)))
    else:
        entry.register_forward_hook(_after(sparsified(EMBEDDING)))
    for name in stream.norms:
        model.get_submodule(name).register_forward_hook(_instead(mask))


def _after(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[nn.Module, Any, torch.Tensor], torch.Tensor]:
    return lambda _module, _inputs, output: change(output)


def _before(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[nn.Module, Any], tuple[torch.Tensor]]:
    return lambda _module, inputs: (change(inputs[0]),)


def _instead(mask: Mask) -> Callable[[nn.Module, Any, torch.Tensor], torch.Tensor]:
    """LayerNorm with mean and variance weighted by the mask, and its output masked: that of the narrow model."""

    def masked(norm: nn.Module, inputs: Any, _output: torch.Tensor) -> torch.Tensor:
        x, m = inputs[0], mask()[:, None]
        rows = x.reshape(len(m), -1, x.shape[-1]).to(m.dtype)
        total = m.sum(-1, keepdim=True)
        centred = rows - (m * rows).sum(-1, keepdim=True) / total
        variance = (m * centred.square()).sum(-1, keepdim=True) / total
        y = centred * torch.rsqrt(variance + norm.eps) * norm.weight.to(m.dtype)
        y = y if norm.bias is None else y + norm.bias.to(m.dtype)
        return (y * m).to(x.dtype).reshape(x.shape)

    return masked
