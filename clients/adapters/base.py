"""The torch-free half of an adapter method: capabilities, forms in messages, the server's part, cost.

Training, and building a model with the adapter, need torch. They are in an :class:`AdapterTraining`, imported on
demand.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from slimfed.clients.adapter import Adapter
from slimfed.clients.models.cost import AdapterLoad, Dimensions, low_rank_load
from slimfed.clients.registry import Registry
from slimfed.clients.structure import Blueprint
from slimfed.clients.update import Update

if TYPE_CHECKING:
    from slimfed.clients.adapters.training.base import AdapterTraining
    from slimfed.clients.spec import TaskSpec


class Capabilities:
    """The capabilities of an adapter method, which the checks of a job read. A method overrides those that differ."""

    plain_factors: ClassVar[bool] = False
    """True if only LoRA's factors A and B, and the head, are trained and sent.

    Required by aggregations of the product B A, local and central privacy, and rank self-pruning
    (``adapter.keep_ranks``).
    """

    supports_server_optimizer: ClassVar[bool] = False
    """True if a server optimiser, or a late update, may change the aggregate: no decision depends on the size of single
    values."""

    supports_rounding: ClassVar[bool] = False
    """True if adapters may be sent in bf16 or int8: no decision depends on the size of single values.

    Rounding errors are kept for factors and head only, so ``plain_factors`` must be true as well.
    """

    supports_shared_structure: ClassVar[bool] = True
    """True if the server may remove heads and channels for all devices (``pruning.structure = "shared"``)."""

    supports_squarehead: ClassVar[bool] = True
    """True if hidden states keep the base's width, so that SquareHead can compare them (``training.recovery``)."""

    supports_quantised_base: ClassVar[bool] = True
    """True if the frozen weights are only read, in products and scores, so that they may be held quantised
    (``model.quantization``)."""

    cuts_width: ClassVar[bool] = False
    """True if the built model has a narrower residual stream than the base, so that weight changes cannot be summed."""

    uses_dropout: ClassVar[bool] = True
    """True if ``adapter.dropout`` acts on the adapter's input."""

    low_rank_options: ClassVar[bool] = False
    """True if ``adapter.targets``, ``adapter.rslora`` and ``adapter.lora_plus`` apply: all that it trains is factors.

    An adapted layer then has the factor B as attribute ``b``.
    """

    trains_in_cohorts: ClassVar[bool] = True
    """False if the method has no :meth:`AdapterTraining.cohort_layer`: devices are then trained one by one."""

    min_rounds: ClassVar[int] = 1
    """Least number of rounds of a run in which the method makes all its decisions."""


class WireForms:
    """The forms of an adapter: in messages and averages, in training, and as plain factors in the end.

    Called on the device; exports also call :meth:`finished`. All return new adapters.
    """

    def opened(self, adapter: Adapter) -> Adapter:
        """The adapter in its training form, from the adapter that was sent, both in the device's shape."""
        return adapter

    def closed(self, adapter: Adapter, rank: int) -> Adapter:
        """The adapter of a device of ``rank`` in its message form, after training: inverse of :meth:`opened`."""
        return adapter

    def upload(self, adapter: Adapter) -> Adapter:
        """The part of a closed adapter that is sent to the server."""
        return adapter

    def finished(self, adapter: Adapter) -> Adapter:
        """Plain LoRA factors, or deltas, that give the same function, for use without training."""
        return adapter


class ServerSide:
    """The server's operations on the global adapter beside aggregation, in the coordinates of the base."""

    def begin(self, adapter: Adapter, blueprint: Blueprint, seed: int) -> Adapter:
        """The adapter that a run starts from, made of plain factors of the largest rank with product 0."""
        return adapter

    def decide(
        self, before: Adapter, after: Adapter, updates: Sequence[Update], task: "TaskSpec", rank: int, round: int
    ) -> Adapter:
        """The global adapter after ``round`` (1-based), with the decisions of the server.

        ``before`` was sent, ``after`` is the aggregate, ``rank`` the largest of the run. ``updates``: all accepted ones
        in device order where ``before`` is undecided; otherwise those that the server has kept.
        """
        return after

    def prunes(self, adapter: Adapter) -> bool:
        """True if devices that are sent ``adapter`` may remove heads and channels in that round."""
        return True

    def removed(self, adapter: Adapter, blueprint: Blueprint) -> float:
        """Share of the prunable parameters, in [0, 1), that is removed beside heads and channels."""
        return 0.0

    def width(self, adapter: Adapter) -> list[int] | None:
        """Dimensions of the residual stream that the built model keeps, ascending; None: all."""
        return None

    def check_finished(self, adapter: Adapter) -> None:
        """Raise ``InputError``, with cause and cure, if no plain model can be made of ``adapter`` yet."""


class TrainingCost:
    """The cost of training an adapter beside its model; counted, not measured."""

    def load(self, size: Dimensions, rank: int, sent: Adapter) -> AdapterLoad:
        """Cost of training at ``rank`` beside a model of ``size``, in a round that began with ``sent``."""
        return low_rank_load(size, rank)


class AdapterMethod(Capabilities, WireForms, ServerSide, TrainingCost, ABC):
    """An adapter method: the parameters that a device trains beside the frozen base.

    A new method overrides what differs from LoRA, and gives its training. It keeps no state between calls. It is one
    file here, whose class is registered with :data:`ADAPTERS`, or an entry point ``slimfed.adapters`` of another
    package; its module must not import torch, so that listing methods is quick.
    """

    @property
    @abstractmethod
    def training(self) -> "AdapterTraining":
        """The training of the method. Torch is imported here, not by the module of the method."""


ADAPTERS: Registry[AdapterMethod] = Registry(
    "method.adapter",
    "slimfed.adapters",
    AdapterMethod,
    package="slimfed.clients.adapters",
)
