"""Training of LoRA: one device through PEFT, a cohort in batched products; the task head is fully trained."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from slimfed.clients.adapter import Adapter, Factors
from slimfed.clients.adapters.training import lora_math
from slimfed.clients.adapters.training.adapted import AdaptedModel, Read, attach_head, fill
from slimfed.clients.adapters.training.base import AdapterTraining, Companion
from slimfed.clients.adapters.training.batched_layers import CohortLinear
from slimfed.clients.adapters.training.broadcast import Broadcast
from slimfed.clients.adapters.training.protocols import Adapted, Kept
from slimfed.clients.adapters.training.rank_penalty import TailPenalty
from slimfed.clients.models.linear import place_of, shape_of, weight_of
from slimfed.clients.models.tensors import to_array
from slimfed.clients.pruning.device_masks import factor_masks, rank_mask
from slimfed.clients.spec import AdapterSpec, TaskSpec
from slimfed.clients.structure import Structure

_NAME = "default"
_ALL = slice(None)


class LoraTraining(AdapterTraining):
    """y = W x + scaling * B (A x) (Hu et al., arXiv 2106.09685)."""

    def attach(self, model: PreTrainedModel, structure: Structure, adapter: Adapter, task: TaskSpec) -> AdaptedModel:
        """Through PEFT's own layers."""
        return attach(model, adapter, task.adapter)

    def cohort_layer(
        self, base: nn.Module, name: str, adapters: Sequence[Adapter], kept: Sequence[Kept], spec: AdapterSpec
    ) -> CohortLinear:
        """Every device's factors in one batched product."""
        a, b = stacked(base, name, adapters, kept)
        return CohortLinear(base, a, b, spec.scaling)

    def companion(self, adapted: Adapted, task: TaskSpec, round: int, ranks: Sequence[int]) -> Companion:
        """HetLoRA's penalty, if the job sets it."""
        return TailPenalty(adapted, task.adapter, ranks) if task.adapter.tail_penalty > 0 else Companion()


@dataclass(frozen=True)
class LayerView:
    """One adapted linear module: y = W x + scaling * B (A x), W [out, in], A [r, in], B [out, r]."""

    module: LoraLayer

    @property
    def weight(self) -> torch.Tensor:
        """Frozen base weight [out, in], a view."""
        return weight_of(self.module.get_base_layer())

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

    def trained(self) -> tuple[nn.Parameter, ...]:
        """A and B."""
        return self.a, self.b

    def undecayed(self) -> tuple[nn.Parameter, ...]:
        """Empty: weight decay acts on A and B."""
        return ()

    def merged(self) -> torch.Tensor:
        """W + scaling * B A."""
        return lora_math.merged(self.weight, self.a, self.b, self.scaling)

    def first_order(self, side: str) -> torch.Tensor:
        """LoRAPrune's importance."""
        return lora_math.first_order(self.weight, self.a, self.b, self.scaling, side)

    def read(self, of: Read) -> Factors:
        """A copy of ``of(parameter)`` for A and B."""
        return Factors(to_array(of(self.a)), to_array(of(self.b)))


def attach(model: PreTrainedModel, adapter: Adapter, spec: AdapterSpec) -> AdaptedModel:
    """Put ``adapter`` (already in ``model``'s shape) onto ``model``, in place.

    The head's parameters are replaced by copies, so that a shared base is unchanged. Raises ``ValueError`` if a factor
    does not fit its module.
    """
    rank = next(iter(adapter.factors.values())).a.shape[0]
    config = LoraConfig(
        r=rank,
        lora_alpha=spec.scaling * rank,  # also float: alpha / r must stay exact
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
        fill(layers[name].a, factors.a, f"{name}.a")
        fill(layers[name].b, factors.b, f"{name}.b")
    return AdaptedModel(model, dict(layers), attach_head(model, adapter.head))


def zero_factors(model: PreTrainedModel, modules: Sequence[str], rank: int) -> dict[str, Factors]:
    """Factors of ``rank`` for the named linear modules of ``model`` with product 0."""
    shapes = {name: shape_of(model.get_submodule(name)) for name in modules}
    return {
        name: Factors(np.zeros((rank, columns), np.float32), np.zeros((rows, rank), np.float32))
        for name, (rows, columns) in shapes.items()
    }


def stacked(
    base: nn.Module, name: str, adapters: Sequence[Adapter], kept: Sequence[Kept]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors [devices, r, in] and [devices, out, r] of module ``name``, at their positions in the unpruned module.

    Zeros elsewhere; r is the devices' largest rank.
    """
    there, (rows, columns) = place_of(base), shape_of(base)
    if isinstance(adapters, Broadcast):
        return _spread(there, (rows, columns), name, adapters)
    rank = max(len(adapter.factors[name].a) for adapter in adapters)
    a = np.zeros((len(adapters), rank, columns), dtype=np.float32)
    b = np.zeros((len(adapters), rows, rank), dtype=np.float32)
    for n, adapter in enumerate(adapters):
        factors = adapter.factors[name]
        own = len(factors.a)
        a[n][:own, kept[n].get((name, "in"), _ALL)] = factors.a
        b[n][kept[n].get((name, "out"), _ALL), :own] = factors.b
    return torch.from_numpy(a).to(*there), torch.from_numpy(b).to(*there)


def _spread(
    there: tuple[torch.device, torch.dtype], shape: tuple[int, int], name: str, sent: Broadcast
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same from one adapter for all: it is copied to the processor once and masked there."""
    whole, device = sent.widened.factors[name], there[0]
    ranks = rank_mask(sent.ranks, device)
    masks = factor_masks(name, sent.masks(device), ranks, *shape)
    r = ranks.shape[1]
    a, b = (torch.from_numpy(part).to(*there) for part in (whole.a[:r], whole.b[:, :r]))
    return torch.where(masks["a"], a, 0.0), torch.where(masks["b"], b, 0.0)
