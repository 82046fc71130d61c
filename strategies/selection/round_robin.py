"""Devices in turn: whoever was not asked for longest."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slimfed.clients.seeds import derive
from slimfed.strategies.selection.base import SELECTORS, Answer, Call, Kept, Selector


@SELECTORS.register("round-robin")
class RoundRobin(Selector):
    """The devices that were asked longest ago, in an order of the run's seed.

    Of n devices that are always available, k a round, every one is asked within ceil(n / k) rounds. A device that was
    away is asked as soon as it is back.
    """

    def __init__(self, spec: Any, seed: int, devices: int) -> None:
        super().__init__(spec, seed, devices)
        self._asked = np.zeros(devices, dtype=np.int64)
        self._place = np.random.default_rng(derive(seed, "selection order")).permutation(devices)

    def select(self, call: Call) -> np.ndarray:
        """Those with the lowest last round, by their places in the order."""
        order = np.lexsort((self._place[call.candidates], self._asked[call.candidates]))
        return call.candidates[order][: call.count]

    def observe(self, number: int, answers: Sequence[Answer]) -> None:
        """Remember who was asked, also if no update came."""
        self._asked[[answer.device for answer in answers]] = number

    def pack(self) -> Kept:
        """The last round that asked each device."""
        return {"asked": self._asked.copy()}, {}

    def load(self, tensors: Mapping[str, np.ndarray], rest: Mapping[str, Any]) -> None:
        """Take that state."""
        asked = tensors["asked"]
        if asked.shape != self._asked.shape or asked.dtype != self._asked.dtype:
            raise ValueError(f"selection/asked is {asked.dtype} {list(asked.shape)}, expected int64 [{self.devices}]")
        self._asked = asked.copy()
