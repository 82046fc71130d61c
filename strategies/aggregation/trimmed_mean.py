"""The mean of the owners without the largest and the smallest, coordinate by coordinate."""

import numpy as np

from slimfed.strategies.aggregation.base import AGGREGATIONS
from slimfed.strategies.aggregation.robust import CoordinateWise


@AGGREGATIONS.register("trimmed-mean")
class TrimmedMean(CoordinateWise):
    """The mean of the owners' values without the largest and the smallest, coordinate by coordinate.

    Coordinate-wise beta-trimmed mean (Yin et al., arXiv 1803.01498, definition 2).

    Of a coordinate's n owners the ceil(share * n) largest and as many of the smallest values are left out, as long as
    one value remains, so that as many malicious values have no effect. The number is rounded up, because malicious
    devices may be among few owners of a coordinate. ``share`` is less than a half.
    """

    def __init__(self, share: float = 0.2) -> None:
        if not 0 <= share < 0.5:
            raise ValueError(f"share = {share}: must be in [0, 0.5)")
        self.share = share

    def centre(self, values: np.ndarray) -> np.ndarray:
        """The trimmed mean over the owners, which are counted for every coordinate by itself."""
        ordered = np.sort(values, axis=0)
        owners = (~np.isnan(values)).sum(axis=0)
        cut = np.minimum(np.ceil(self.share * owners - 1e-9), (owners - 1) // 2)
        position = np.arange(len(values)).reshape(-1, *[1] * (values.ndim - 1))
        counts = (position >= cut) & (position < owners - cut)
        return np.where(counts, ordered, 0.0).sum(axis=0) / counts.sum(axis=0)
