"""The interface of an allocation.

Torch is imported only for measuring, so that listing allocations is quick.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from slimfed.clients.registry import Registry
from slimfed.clients.structure import Blueprint

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Probe:
    """What an allocation measures on: a plain model with the adapter in it, sliced or not, and text in batches.

    ``dtype`` other than float32 computes under autocast. ``seed``: of whatever is drawn.
    """

    model: "PreTrainedModel"
    blueprint: Blueprint
    batches: "Sequence[dict[str, torch.Tensor]]"
    dtype: "torch.dtype"
    seed: int


class Allocation(ABC):
    """Says what share of each block is kept when one structure is cut to a sparsity.

    A new allocation is one file here, whose class is registered with :data:`ALLOCATIONS`, or an entry point
    ``slimfed.allocations`` of another package. There is one object; it keeps no state.
    """

    by_scope: ClassVar[bool] = False
    """True if ``pruning.scope`` decides, so that :meth:`weights` is not asked."""

    measures: ClassVar[bool] = False
    """True if it needs :meth:`measure`, which runs the model on text."""

    passes_per_block: ClassVar[int] = 0
    """Forward passes of :meth:`measure` for each block and batch, beside one for the batch; to count the work."""

    def measure(self, probe: Probe) -> np.ndarray:
        """What is measured on the text, float64 [1 + blocks]: the counted tokens, then a number of each block, >= 0.

        The numbers are sums over the tokens, so that the measures of several texts or devices add up.
        """
        raise NotImplementedError(f"{type(self).__name__} measures nothing")

    @abstractmethod
    def weights(self, blueprint: Blueprint, measured: np.ndarray | None, kept: float) -> np.ndarray:
        """Positive weights, float64 [blocks]: kept shares are proportional to them, within the job's bounds.

        ``measured``: the sum of what :meth:`measure` gave, if it measures. ``kept``: share of the prunable parameters
        that is kept in all, in (0, 1].
        """


ALLOCATIONS: Registry[Allocation] = Registry(
    "pruning.allocation",
    "slimfed.allocations",
    Allocation,
    package="slimfed.clients.allocation",
    helpers=("counts", "choosing"),
)
