"""The median of the owners, coordinate by coordinate."""

import numpy as np

from slimfed.strategies.aggregation.base import AGGREGATIONS
from slimfed.strategies.aggregation.robust import CoordinateWise


@AGGREGATIONS.register("median")
class Median(CoordinateWise):
    """The median of the owners' values, coordinate by coordinate.

    Coordinate-wise median (Yin et al., arXiv 1803.01498): less than half of the owners cannot move it far.

    Where owners are even in number, the mean of the two in the middle.
    """

    def centre(self, values: np.ndarray) -> np.ndarray:
        """The median over the owners of every coordinate."""
        return np.nanmedian(values, axis=0)
