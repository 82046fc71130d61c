"""LoRA through PEFT, with a rank of its own for every device, and the task head trained in full beside it."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from slimfed.clients.spec import AdapterSpec
from slimfed.clients.update import Adapter, Factors

_NAME = "default"


@dataclass(frozen=True)
class LayerView:
    """One adapted linear as the equations see it: y = W x + scaling * B (A x), W [out, in], A [r, in], B [out, r]."""

    module: LoraLayer

    @property
    def weight(self) -> torch.Tensor:
        """Frozen base weight [out, in] (a view; GPT-2's Conv1D stores it transposed)."""
        base = self.module.get_base_layer()
        return base.weight.T if isinstance(base, Conv1D) else base.weight

    @property
    def a(self) -> nn.Parameter:
        """Factor A, [r, in]."""
        return self.module.lora_A[_NAME].weight

    @property
    def b(self) -> nn.Parameter:
        """Factor B, [out, r]."""
        return self.module.lora_B[_NAME].weight

    @property
    def scaling(self) -> float:
        """alpha / r, the same for every rank."""
        return self.module.scaling[_NAME]


@dataclass(frozen=True)
class AdaptedModel:
    """A (sliced) model that carries an adapter: what the trainer moves and what comes back in an update."""

    model: PreTrainedModel
    layers: dict[str, LayerView]
    head: dict[str, nn.Parameter]

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.model.device

    @property
    def lead(self) -> tuple[int, ...]:
        """One device: no leading axis."""
        return ()

    def layer(self, name: str) -> LayerView:
        """The adapted linear called ``name`` in the unadapted model."""
        return self.layers[name]

    def parameters(self) -> list[nn.Parameter]:
        """All that is trained: factors in module order, then the head."""
        return [p for layer in self.layers.values() for p in (layer.a, layer.b)] + list(self.head.values())

    def read(self, of: Callable[[nn.Parameter], torch.Tensor] = torch.Tensor.detach) -> Adapter:
        """A copy, as float32 arrays, of what has been learnt, or of what ``of`` gives for each parameter."""
        factors = {name: Factors(_array(of(layer.a)), _array(of(layer.b))) for name, layer in self.layers.items()}
        return Adapter(factors, {name: _array(of(p)) for name, p in self.head.items()})


def attach(model: PreTrainedModel, adapter: Adapter, spec: AdapterSpec) -> AdaptedModel:
    """Put ``adapter`` (already in ``model``'s shape) onto ``model``, in place.

    The head's parameters are replaced by copies, so that a base shared with other devices stays as it is. Raises
    ``ValueError`` if a factor does not fit its module.
    """
    rank = next(iter(adapter.factors.values())).a.shape[0]
    config = LoraConfig(
        r=rank,
        lora_alpha=spec.scaling * rank,  # a float too: alpha / r must stay exact
        lora_dropout=spec.dropout,
        target_modules=list(adapter.factors),
        init_lora_weights=False,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")
        with torch.random.fork_rng(devices=[]):
            inject_adapter_in_model(config, model)
    layers = {name: LayerView(model.get_submodule(name)) for name in adapter.factors}
    for name, factors in adapter.factors.items():
        _fill(layers[name].a, factors.a, f"{name}.a")
        _fill(layers[name].b, factors.b, f"{name}.b")
    head = {name: _replace(model, name, value) for name, value in adapter.head.items()}
    return AdaptedModel(model, layers, head)


def merge(adapted: AdaptedModel) -> PreTrainedModel:
    """Fold the adapter into the base weights of this (sliced) model: W <- W + scaling * B A. Weights become copies."""
    model = adapted.model
    with torch.no_grad():
        for name, layer in adapted.layers.items():
            base = layer.module.get_base_layer()
            merged = layer.weight + layer.scaling * (layer.b @ layer.a)
            base.weight = nn.Parameter(merged.T if isinstance(base, Conv1D) else merged, requires_grad=False)
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, base)
    return model


def head_state(model: PreTrainedModel, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The named parameters as float32 arrays: the head an untrained model starts from."""
    return {name: _array(model.get_parameter(name)) for name in names}


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float32, copy=True).numpy()


def _fill(parameter: nn.Parameter, value: np.ndarray, name: str) -> None:
    if tuple(parameter.shape) != value.shape:
        raise ValueError(f"{name}: shape {list(value.shape)} does not fit the module's {list(parameter.shape)}")
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(value))


def _replace(model: PreTrainedModel, name: str, value: np.ndarray) -> nn.Parameter:
    parent, _, leaf = name.rpartition(".")
    old = model.get_parameter(name)
    fresh = nn.Parameter(torch.empty_like(old))
    _fill(fresh, value, name)
    setattr(model.get_submodule(parent), leaf, fresh)
    return fresh
