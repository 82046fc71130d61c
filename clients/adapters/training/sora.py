"""Training of SoRA: PEFT's layers with a gate, and a soft threshold after every step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.adapters.training import lora_math
from slimfed.clients.adapters.training.adapted import AdaptedModel, DeviceLayer, Read
from slimfed.clients.adapters.training.base import AdapterTraining, Companion
from slimfed.clients.adapters.training.batched_layers import CohortLinear
from slimfed.clients.adapters.training.lora import LayerView, attach, stacked
from slimfed.clients.adapters.training.protocols import Adapted, Kept
from slimfed.clients.models.tensors import to_array
from slimfed.clients.spec import AdapterSpec, TaskSpec
from slimfed.clients.structure import Structure

_LADDER = 7


class SoraTraining(AdapterTraining):
    """y = W x + scaling * B (g * (A x)), and g <- soft(g, xi) after every optimiser step."""

    def attach(self, model: PreTrainedModel, structure: Structure, adapter: Adapter, task: TaskSpec) -> AdaptedModel:
        """PEFT's layers, with the gate between A and B."""
        plain = attach(model, adapter, task.adapter)
        layers: dict[str, DeviceLayer] = {}
        for name, f in adapter.factors.items():
            gate = nn.Parameter(torch.from_numpy(np.array(f.gate)).to(model.device, model.dtype))
            model.get_submodule(f"{name}.lora_A.default").register_forward_hook(_times(gate))
            layers[name] = GatedView(model.get_submodule(name), gate)
        return AdaptedModel(model, layers, plain.head)

    def cohort_layer(
        self, base: nn.Module, name: str, adapters: Sequence[Adapter], kept: Sequence[Kept], spec: AdapterSpec
    ) -> CohortLinear:
        """LoRA's batched products, with every device's gate between them."""
        a, b = stacked(base, name, adapters, kept)
        gate = torch.zeros(a.shape[:2], dtype=a.dtype)
        for row, adapter in zip(gate, adapters, strict=True):
            own = torch.from_numpy(np.array(adapter.factors[name].gate))
            row[: len(own)] = own
        return CohortGatedLinear(base, a, b, gate.to(a.device), spec.scaling)

    def companion(self, adapted: Adapted, task: TaskSpec, round: int, ranks: Sequence[int]) -> Companion:
        """The proximal step."""
        rung = (round - 1) * _LADDER // task.training.rounds
        fixed = task.training.learning_rate if task.adapter.threshold_follows == "nothing" else None
        return _Proximal(adapted, task.adapter.threshold * rung / (_LADDER - 1), fixed)


@dataclass(frozen=True)
class GatedView(LayerView):
    """An adapted linear with a gate [r] between A and B: y = W x + scaling * B (g * (A x))."""

    gate: nn.Parameter

    def trained(self) -> tuple[nn.Parameter, ...]:
        """A, B and the gate."""
        return self.a, self.b, self.gate

    def undecayed(self) -> tuple[nn.Parameter, ...]:
        """The gate, which has a threshold instead."""
        return (self.gate,)

    def merged(self) -> torch.Tensor:
        """W + scaling * B diag(g) A."""
        return lora_math.merged(self.weight, self.gate[:, None] * self.a, self.b, self.scaling)

    def first_order(self, side: str) -> torch.Tensor:
        """LoRAPrune's importance of the gated product."""
        return lora_math.gated_first_order(self.weight, self.a, self.b, self.gate, self.scaling, side)

    def read(self, of: Read) -> Factors:
        """A copy of ``of(parameter)`` for A, B and the gate."""
        return Factors(to_array(of(self.a)), to_array(of(self.b)), to_array(of(self.gate)))


class CohortGatedLinear(CohortLinear):
    """The same for a cohort: gate [devices, r]. Ranks above a device's own are 0 in A, B and gate, and stay 0."""

    def __init__(self, base: nn.Module, a: torch.Tensor, b: torch.Tensor, gate: torch.Tensor, scaling: float) -> None:
        super().__init__(base, a, b, scaling)
        self.gate = nn.Parameter(gate)

    def factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """diag(g) A and B."""
        return self.gate[:, :, None] * self.a, self.b

    def trained(self) -> tuple[nn.Parameter, ...]:
        """A, B and the gates."""
        return self.a, self.b, self.gate

    def undecayed(self) -> tuple[nn.Parameter, ...]:
        """The gates."""
        return (self.gate,)

    def first_order(self, side: str) -> torch.Tensor:
        """LoRAPrune's importance of the gated product."""
        return lora_math.gated_first_order(self.weight, self.a, self.b, self.gate, self.scaling, side)

    def read(self) -> list[Factors]:
        """The devices' factors and gates."""
        return [Factors(*parts) for parts in zip(*map(to_array, self.trained()), strict=True)]


@dataclass(frozen=True)
class _Proximal(Companion):
    """g <- soft(g, xi) after every step, with xi = ``threshold`` * learning rate, or ``fixed`` if it is not None."""

    adapted: Adapted
    threshold: float
    fixed: float | None

    def end(self, learning_rate: float | torch.Tensor) -> None:
        """Soft threshold: |g| <= xi becomes 0, other entries move by xi towards 0."""
        xi = self.threshold * (learning_rate if self.fixed is None else self.fixed)
        with torch.no_grad():
            for layer in self.adapted.layers.values():
                for gate in layer.undecayed():
                    gate.copy_(gate.sign() * (gate.abs() - xi).clamp_min(0.0))


def _times(gate: nn.Parameter) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]:
    def hook(_module: nn.Module, _inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return output * gate.to(output.dtype)

    return hook
