"""What an adapter method is: how a device's adapter is trained, sent, averaged and built into a model."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from slimfed.clients.adapter import Adapter
from slimfed.clients.adapters.merging import fold
from slimfed.clients.adapters.protocols import Adapted, CohortLayer, Kept
from slimfed.clients.models.cost import AdapterLoad, Dimensions, low_rank_load
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.clients.structure import Blueprint, Structure
from slimfed.clients.update import Update

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from slimfed.clients.adapters.adapted import AdaptedModel
    from slimfed.clients.spec import AdapterSpec, TaskSpec


class Companion:
    """What an adapter does at every local step beside the optimiser's own; nothing, unless it says otherwise."""

    def begin(self, step: int) -> None:
        """Told before local step ``step``; what changes must change in place, since a GPU's steps are recorded."""

    def penalty(self) -> torch.Tensor | None:
        """What is added to the loss of each device, [*lead]; None: nothing."""
        return None

    def end(self, learning_rate: float | torch.Tensor) -> None:
        """Told after the optimiser has moved by ``learning_rate``; on a GPU perhaps a tensor []."""


class AdapterMethod(ABC):
    """One way to adapt: what a device trains beside the frozen base. A new one is one file here and one registry line.

    An adapter has three forms: as it travels and is averaged, as it is trained (:meth:`opened`), and at last as plain
    factors (:meth:`finished`). The trainers call :meth:`attach` or, module by module, :meth:`cohort_layer`; both must
    train alike.
    """

    def check(self, model: "PreTrainedModel", blueprint: Blueprint) -> None:  # noqa: B027 - most can do all
        """Raise ``InputError``, with cause and cure, if the method cannot adapt this (unpruned) model."""

    def begin(self, adapter: Adapter, blueprint: Blueprint, seed: int) -> Adapter:
        """What a run starts from, given plain factors of the largest rank that change nothing."""
        return adapter

    def opened(self, adapter: Adapter) -> Adapter:
        """A device's adapter as it is trained, from what the server sent."""
        return adapter

    def closed(self, adapter: Adapter, rank: int) -> Adapter:
        """What a device of ``rank`` makes of its training: inverse of :meth:`opened`."""
        return adapter

    def upload(self, adapter: Adapter) -> Adapter:
        """What of it goes to the server."""
        return adapter

    def decide(
        self, before: Adapter, after: Adapter, updates: Sequence[Update], task: "TaskSpec", rank: int, round: int
    ) -> Adapter:
        """The server's word on what only it can decide, after a round.

        ``before`` was sent, ``after`` is the aggregate, ``rank`` the largest of the run. ``updates``: all accepted ones
        in device order where ``before`` is undecided; otherwise as many as the server happens to hold.
        """
        return after

    def prunes(self, adapter: Adapter) -> bool:
        """True if devices that are sent ``adapter`` may remove heads and channels in that round."""
        return True

    def removed(self, adapter: Adapter, blueprint: Blueprint) -> float:
        """Share of the prunable parameters that the method has removed itself, beside heads and channels."""
        return 0.0

    def width(self, adapter: Adapter) -> list[int] | None:
        """Dimensions of the residual stream that the built model keeps, ascending; None: all."""
        return None

    def check_finished(self, adapter: Adapter) -> None:  # noqa: B027 - most are at any time
        """Raise ``InputError``, with cause and cure, if no plain model can be made of ``adapter`` yet."""

    def undecayed(self, name: str) -> bool:
        """True if weight decay spares the extra tensor of this name."""
        return False

    def install(  # noqa: B027 - most have no extra tensors
        self, base: "PreTrainedModel", model: "PreTrainedModel", blueprint: Blueprint, extra: Mapping[str, nn.Parameter]
    ) -> None:
        """Put the extra tensors [devices, ...] to work in ``model``, a cohort's, made of ``base``."""

    def build(
        self, base: "PreTrainedModel", structure: Structure, adapter: Adapter, spec: "AdapterSpec"
    ) -> "PreTrainedModel":
        """The plain model that a device of this structure has, with ``adapter`` (in its shape) in it."""
        return fold(slice_model(base, structure), self.finished(adapter), spec.scaling)

    def load(self, size: Dimensions, rank: int, sent: Adapter) -> AdapterLoad:
        """What training at ``rank`` costs beside a model of ``size``, in a round that began with ``sent``."""
        return low_rank_load(size, rank)

    def finished(self, adapter: Adapter) -> Adapter:
        """What is left when no more training comes: plain LoRA factors that say the same."""
        return adapter

    def companion(self, adapted: Adapted, task: "TaskSpec", round: int, ranks: Sequence[int]) -> Companion:
        """What goes along with the training of ``adapted`` in a round (1-based), by devices of these ``ranks``."""
        return Companion()

    @abstractmethod
    def attach(
        self, model: "PreTrainedModel", structure: Structure, adapter: Adapter, task: "TaskSpec"
    ) -> "AdaptedModel":
        """Put ``adapter`` onto ``model``, both in the shape of ``structure``, in place.

        Raises ``ValueError`` if a tensor does not fit.
        """

    @abstractmethod
    def cohort_layer(
        self, base: nn.Module, name: str, adapters: Sequence[Adapter], kept: Sequence[Kept], spec: "AdapterSpec"
    ) -> CohortLayer:
        """The module ``name`` (``base``, unpruned) for devices whose adapters are in their own shapes."""

    def hindrance(self, spec: "AdapterSpec") -> str:
        """Why devices with this adapter cannot be trained in cohorts; empty if they can."""
        if spec.dropout > 0:
            return "adapter.dropout draws from one random state, which devices of a cohort cannot share"
        return ""


def parameter_groups(adapted: Adapted, weight_decay: float) -> list[dict[str, Any]]:
    """All that is trained, for the optimiser: what decays, and what does not."""
    spared = adapted.undecayed()
    known = {id(p) for p in spared}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in adapted.parameters() if id(p) not in known], "weight_decay": weight_decay}
    ]
    return [*groups, {"params": spared, "weight_decay": 0.0}] if spared else groups
