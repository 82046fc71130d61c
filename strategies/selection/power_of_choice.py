"""Power of choice: of a few drawn candidates, those with the highest loss."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slimfed.strategies.selection.base import SELECTORS, Answer, Call, Kept, Selector
from slimfed.strategies.selection.memory import DeviceMemory


@SELECTORS.register("power-of-choice")
class PowerOfChoice(Selector):
    """Of d devices drawn in proportion to their text, the ones on whose text the model has the highest loss.

    Cho, Wang and Joshi, arXiv 2010.01243 [the scheme from memory; the abstract and descriptions of it were checked], in
    its variant rpow-d, which asks nobody for a loss: a device counts with the loss that it told last, and as infinite
    before. d = ``fleet.candidates`` times the number of devices that are asked. Of equal losses those drawn first are
    taken. A device whose number of texts is not known is drawn as if it had the mean of the known ones.
    """

    independent_of_text = False
    probes = True

    def __init__(self, spec: Any, seed: int, devices: int) -> None:
        super().__init__(spec, seed, devices)
        self._memory = DeviceMemory.new(devices)

    def select(self, call: Call) -> np.ndarray:
        """Those with the highest loss of the drawn ones."""
        drawn = self.drawn(call)
        losses = self._memory.loss[drawn]
        losses = np.where(np.isnan(losses), np.inf, losses)
        return drawn[np.argsort(-losses, kind="stable")][: call.count]

    def drawn(self, call: Call) -> np.ndarray:
        """The d candidates of a round, in the order of the draw."""
        size = min(len(call.candidates), max(call.count, round(self.spec.candidates * call.count)))
        told = self._memory.examples[call.candidates]
        texts = np.where(np.isnan(call.examples), told, call.examples)
        known = texts[np.isfinite(texts) & (texts > 0)]
        texts = np.where(np.isfinite(texts) & (texts > 0), texts, known.mean() if known.size else 1.0)
        return self.draw(call.number).choice(call.candidates, size, replace=False, p=texts / texts.sum())

    def observe(self, number: int, answers: Sequence[Answer]) -> None:
        """Remember losses."""
        self._memory.learn(number, answers)

    def pack(self) -> Kept:
        """What is remembered of the devices."""
        return self._memory.tensors(), {}

    def load(self, tensors: Mapping[str, np.ndarray], rest: Mapping[str, Any]) -> None:
        """Take that state."""
        self._memory = DeviceMemory.of(tensors, self.devices)
