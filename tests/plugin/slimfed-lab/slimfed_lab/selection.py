"""A selection that goes by the devices' numbers."""

import numpy as np

from slimfed.strategies.selection import Call, Selector


class Neighbours(Selector):
    """Devices that follow each other by number, from a place that is drawn each round."""

    def select(self, call: Call) -> np.ndarray:
        """So many candidates in a row. Draws come from ``self.draw`` alone."""
        start = self.draw(call.number).integers(len(call.candidates))
        return np.roll(call.candidates, -start)[: call.count]
