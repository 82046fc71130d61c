"""The quickest devices first, with some places for devices that were not asked for longest."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slimfed.strategies.selection.base import SELECTORS, Answer, Call, Kept, Selector
from slimfed.strategies.selection.memory import DeviceMemory


@SELECTORS.register("fast-first")
class FastFirst(Selector):
    """The devices with the shortest last completion time; a share of the places is for those asked longest ago.

    In the manner of FedCS (Nishio and Yonetani, arXiv 1804.08333), which takes as many quick clients as fit a deadline;
    a fixed number and the share ``fleet.exploration`` are ours. Without that share slow devices would never be asked
    again, and the model would not learn their text. A device without accepted update counts as slower than all others.
    """

    independent_of_text = False

    def __init__(self, spec: Any, seed: int, devices: int) -> None:
        super().__init__(spec, seed, devices)
        self._memory = DeviceMemory.new(devices)

    def select(self, call: Call) -> np.ndarray:
        """The quickest, and a share of those that were not asked for longest."""
        memory, draw = self._memory, self.draw(call.number)
        known = call.candidates[np.isfinite(memory.seconds[call.candidates])]
        quick = min(len(known), call.count - memory.places(self.spec.exploration, call.count, draw))
        fastest = known[np.argsort(memory.seconds[known], kind="stable")][:quick]
        others = np.setdiff1d(call.candidates, fastest)
        return np.concatenate([fastest, memory.longest_unasked(others, call.count - quick, draw)])

    def observe(self, number: int, answers: Sequence[Answer]) -> None:
        """Remember times."""
        self._memory.learn(number, answers)

    def pack(self) -> Kept:
        """What is remembered of the devices."""
        return self._memory.tensors(), {}

    def load(self, tensors: Mapping[str, np.ndarray], rest: Mapping[str, Any]) -> None:
        """Take that state."""
        self._memory = DeviceMemory.of(tensors, self.devices)
