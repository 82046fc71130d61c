"""Equal layers, or whatever ``pruning.scope`` says."""

from typing import ClassVar

import numpy as np

from slimfed.clients.allocation.base import ALLOCATIONS, Allocation
from slimfed.clients.structure import Blueprint


@ALLOCATIONS.register("equal")
class Equal(Allocation):
    """Layers are cut as pruning.scope says; by default all become equally sparse."""

    by_scope: ClassVar[bool] = True

    def weights(self, blueprint: Blueprint, measured: np.ndarray | None, kept: float) -> np.ndarray:
        """1 for every block."""
        return np.ones(len(blueprint.blocks))
