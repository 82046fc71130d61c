"""What an adapter method says of itself, without torch: what it can do, how it travels, what the server does, its cost.

How it is trained and built into a model needs torch and lies in an :class:`AdapterTraining`, imported when asked for.
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
    """What is true of an adapter method. Job checks read these; a method overrides those that differ."""

    plain_factors: ClassVar[bool] = False
    """True if LoRA's factors A and B, and the head, are all that is trained and sent.

    Aggregations of the product B A, local and central privacy, and giving up ranks (``adapter.keep_ranks``) need that.
    """

    supports_server_optimizer: ClassVar[bool] = False
    """True if the server may move the aggregate on by momentum: nothing is decided by the size of single numbers."""

    supports_rounding: ClassVar[bool] = False
    """True if adapters may be rounded to bf16 or int8 on their way: nothing is decided by the size of single numbers.

    What rounding took away is kept for factors and head alone, so ``plain_factors`` must be true, too.
    """

    supports_shared_structure: ClassVar[bool] = True
    """True if the server may remove heads and channels for all devices (``pruning.structure = "shared"``)."""

    supports_squarehead: ClassVar[bool] = True
    """True if hidden states keep the base's width, so that SquareHead can compare them (``training.recovery``)."""

    cuts_width: ClassVar[bool] = False
    """True if the built model has a narrower residual stream than the base, so that two changes cannot be added."""

    uses_dropout: ClassVar[bool] = True
    """True if ``adapter.dropout`` acts on the adapter's input."""

    trains_in_cohorts: ClassVar[bool] = True
    """False if the method has no :meth:`AdapterTraining.cohort_layer`: its devices are then trained one by one."""

    min_rounds: ClassVar[int] = 1
    """Rounds that a run needs at least for the method to make all its decisions."""


class WireForms:
    """The forms of an adapter: as it travels and is averaged, as it is trained, and as plain factors at last.

    Called on the device, but for :meth:`finished`, which exports ask for too. All return new adapters.
    """

    def opened(self, adapter: Adapter) -> Adapter:
        """A device's adapter as it is trained, from what the server sent, both in the device's shape."""
        return adapter

    def closed(self, adapter: Adapter, rank: int) -> Adapter:
        """What a device of ``rank`` makes of its training: inverse of :meth:`opened`."""
        return adapter

    def upload(self, adapter: Adapter) -> Adapter:
        """What of a closed adapter goes to the server."""
        return adapter

    def finished(self, adapter: Adapter) -> Adapter:
        """What is left when no more training comes: plain LoRA factors, or deltas, that say the same."""
        return adapter


class ServerSide:
    """What the server does with the global adapter, in the coordinates of the base, beside aggregating it."""

    def begin(self, adapter: Adapter, blueprint: Blueprint, seed: int) -> Adapter:
        """What a run starts from, given plain factors of the largest rank that change nothing."""
        return adapter

    def decide(
        self, before: Adapter, after: Adapter, updates: Sequence[Update], task: "TaskSpec", rank: int, round: int
    ) -> Adapter:
        """The global adapter after ``round`` (1-based), with what only the server can decide.

        ``before`` was sent, ``after`` is the aggregate, ``rank`` the largest of the run. ``updates``: all accepted ones
        in device order where ``before`` is undecided; otherwise as many as the server happens to hold.
        """
        return after

    def prunes(self, adapter: Adapter) -> bool:
        """True if devices that are sent ``adapter`` may remove heads and channels in that round."""
        return True

    def removed(self, adapter: Adapter, blueprint: Blueprint) -> float:
        """Share of the prunable parameters, in [0, 1), that is removed in other ways than by heads and channels."""
        return 0.0

    def width(self, adapter: Adapter) -> list[int] | None:
        """Dimensions of the residual stream that the built model keeps, ascending; None: all."""
        return None

    def check_finished(self, adapter: Adapter) -> None:
        """Raise ``InputError``, with cause and cure, if no plain model can be made of ``adapter`` yet."""


class TrainingCost:
    """What training an adapter costs beside its model; counted, not measured."""

    def load(self, size: Dimensions, rank: int, sent: Adapter) -> AdapterLoad:
        """What training at ``rank`` costs beside a model of ``size``, in a round that began with ``sent``."""
        return low_rank_load(size, rank)


class AdapterMethod(Capabilities, WireForms, ServerSide, TrainingCost, ABC):
    """One way to adapt: what a device trains beside the frozen base.

    A new one overrides what differs from LoRA and says how it is trained. It keeps nothing between calls. It is one
    file here, whose class registers itself with :data:`ADAPTERS`, or an entry point ``slimfed.adapters`` of another
    package; the declaration must not import torch, so that naming methods takes no seconds.
    """

    @property
    @abstractmethod
    def training(self) -> "AdapterTraining":
        """How it is trained and built into a model. Torch is imported here, not by the module of the method."""


ADAPTERS: Registry[AdapterMethod] = Registry(
    "method.adapter",
    "slimfed.adapters",
    AdapterMethod,
    package="slimfed.clients.adapters",
)
