"""The torch half of an adapter method: training, and building a model with the adapter."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters.training.merging import fold
from slimfed.clients.adapters.training.protocols import Adapted, CohortLayer, Kept
from slimfed.clients.models.quantised_base import dequantise_linears
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.clients.structure import Blueprint, Structure

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from slimfed.clients.adapters.training.adapted import AdaptedModel
    from slimfed.clients.spec import AdapterSpec, TaskSpec


class Companion:
    """Additional work of an adapter at every local step; by default none."""

    def begin(self, step: int) -> None:
        """Called before local step ``step`` (0-based). Changes tensors in place, since steps are recorded on a GPU."""

    def penalty(self) -> torch.Tensor | None:
        """Term added to the loss of each device, [*lead]; None: no term."""
        return None

    def end(self, learning_rate: float | torch.Tensor) -> None:
        """Called after the optimiser's step with this ``learning_rate``, which may be a tensor [] on a GPU."""


class AdapterTraining(ABC):
    """The training of one adapter method.

    The trainers call :meth:`attach` or, module by module, :meth:`cohort_layer`. Both must give the same training. Keeps
    no state between calls.
    """

    def check(self, model: "PreTrainedModel", blueprint: Blueprint) -> None:  # noqa: B027 - most can do all
        """Raise ``InputError``, with cause and cure, if the method cannot adapt this (unpruned) model."""

    @abstractmethod
    def attach(
        self, model: "PreTrainedModel", structure: Structure, adapter: Adapter, task: "TaskSpec"
    ) -> "AdaptedModel":
        """Put ``adapter`` (opened) onto ``model``, both in the shape of ``structure``, in place.

        Raises ``ValueError`` if a tensor does not fit.
        """

    def cohort_layer(
        self, base: nn.Module, name: str, adapters: Sequence[Adapter], kept: Sequence[Kept], spec: "AdapterSpec"
    ) -> CohortLayer:
        """The module ``name`` (``base``, unpruned) for devices whose adapters are in their own shapes.

        Never called for a method that says ``trains_in_cohorts = False``.
        """
        raise NotImplementedError(f"{type(self).__name__} has no layers for cohorts")

    def install(  # noqa: B027 - most have no extra tensors
        self, base: "PreTrainedModel", model: "PreTrainedModel", blueprint: Blueprint, extra: Mapping[str, nn.Parameter]
    ) -> None:
        """Apply the extra tensors [devices, ...] in a cohort's ``model``, made of ``base``."""

    def undecayed(self, name: str) -> bool:
        """True if the extra tensor of this name has no weight decay."""
        return False

    def companion(self, adapted: Adapted, task: "TaskSpec", round: int, ranks: Sequence[int]) -> Companion:
        """The companion of the training of ``adapted`` in a round (1-based), for devices of these ``ranks``."""
        return Companion()

    def build(
        self, base: "PreTrainedModel", structure: Structure, adapter: Adapter, spec: "AdapterSpec"
    ) -> "PreTrainedModel":
        """The plain model that a device of ``structure`` has; the weights of ``base`` are unchanged.

        Of a quantised base the adapter is folded into the dequantised weights that devices train against.
        ``adapter`` is finished (``WireForms.finished``) and in the device's shape.
        """
        return fold(dequantise_linears(slice_model(base, structure)), adapter, spec.scaling)


def parameter_groups(adapted: Adapted, weight_decay: float, lora_plus: float = 1.0) -> list[dict[str, Any]]:
    """Parameter groups for the optimiser: with and without weight decay, and factors B if ``lora_plus`` is not 1.

    ``times``: their learning rate over that of the run.
    """
    spared = adapted.undecayed()
    quick = outer_factors(adapted) if lora_plus != 1 else []
    known = {id(p) for p in (*spared, *quick)}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in adapted.parameters() if id(p) not in known], "weight_decay": weight_decay, "times": 1.0},
        {"params": spared, "weight_decay": 0.0, "times": 1.0},
        {"params": quick, "weight_decay": weight_decay, "times": lora_plus},
    ]
    return [group for group in groups if group["params"]]


def outer_factors(adapted: Adapted) -> list[nn.Parameter]:
    """The factors B, whose learning rate LoRA+ raises (arXiv 2402.12354)."""
    return [layer.b for layer in adapted.layers.values() if hasattr(layer, "b")]
