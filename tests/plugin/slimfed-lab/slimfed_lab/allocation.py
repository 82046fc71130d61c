"""Layer shares by the layer's number."""

import numpy as np

from slimfed.clients.allocation import Allocation
from slimfed.clients.structure import Blueprint


class LaterLayers(Allocation):
    """Later layers keep more."""

    def weights(self, blueprint: Blueprint, measured: np.ndarray | None, kept: float) -> np.ndarray:
        """The number of each block's layer, from 1; kept shares are proportional to it."""
        return np.array([1.0 + block.layer for block in blueprint.blocks])
