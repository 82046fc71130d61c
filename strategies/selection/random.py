"""Devices drawn at random: every set of so many devices is equally likely."""

import numpy as np

from slimfed.strategies.selection.base import SELECTORS, Call, Selector


@SELECTORS.register("random")
class Random(Selector):
    """A uniform draw without replacement, by the run's seed and the round."""

    def select(self, call: Call) -> np.ndarray:
        """A sample of the candidates."""
        return self.draw(call.number).choice(call.candidates, call.count, replace=False)
