"""Layer shares by how far a block turns the residual stream."""

from typing import ClassVar

import numpy as np

from slimfed.clients.allocation.base import ALLOCATIONS, Allocation, Probe
from slimfed.clients.structure import Blueprint

SHARPNESS = 131072 / 1e4
"""The release divides the sum of the angles over 128 texts of 1024 tokens by 1e4; this is the factor on their mean."""


@ALLOCATIONS.register("cfsp")
class Cfsp(Allocation):
    """A block keeps the more, the further it turns the residual stream on the text (CFSP, arXiv 2409.13199).

    With m_b the mean angle (``calibration/stream_angles.py``), u_b = sigmoid(13.1 (m_b - mean m)), and the kept share
    is proportional to u_b. If that would keep a whole block, all deviations from the mean are scaled by one factor, so
    that none is kept whole. [code wyxscir/CFSP]; there whole layers are weighed and FFN channels go, here every block
    is weighed by itself, heads too, and the mean of u is weighted by the blocks' parameters (ours).
    """

    measures: ClassVar[bool] = True

    def measure(self, probe: Probe) -> np.ndarray:
        """Tokens, and the sum of the angles of each block."""
        from slimfed.clients.calibration.stream_angles import stream_angles  # not above: see base.py

        found = stream_angles(probe.model, probe.blueprint, probe.batches, probe.dtype)
        return np.concatenate([[found.tokens], found.total])

    def weights(self, blueprint: Blueprint, measured: np.ndarray | None, kept: float) -> np.ndarray:
        """u_b with its deviations from the mean, scaled down if need be."""
        if measured is None:
            raise ValueError('pruning.allocation = "cfsp" has measured nothing yet')
        angles = np.clip(measured[1:] / measured[0], 0.0, 1.0)
        turned = 1.0 / (1.0 + np.exp(-SHARPNESS * (angles - angles.mean())))
        parameters = [block.units * block.unit_parameters for block in blueprint.blocks]
        mean = float(np.average(turned, weights=parameters))
        deviations = turned - mean
        room = mean / kept - mean
        most = float(deviations.max())
        return mean + deviations * (min(1.0, room / most) if most > 0 else 1.0)
