"""What a selection remembers of every device: its last answer, and when it was asked."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from slimfed.strategies.selection.base import Answer

_PARTS = ("asked", "loss", "examples", "seconds")


@dataclass
class DeviceMemory:
    """Of every device [devices]: ``asked``, int64, the last round that asked it (0: none did); ``loss``, ``examples``
    and ``seconds``, float64, of its last accepted update (NaN: there was none)."""

    asked: np.ndarray
    loss: np.ndarray
    examples: np.ndarray
    seconds: np.ndarray

    @staticmethod
    def new(devices: int) -> "DeviceMemory":
        """Nothing is known of any device."""
        unknown = (np.full(devices, np.nan) for _ in range(3))
        return DeviceMemory(np.zeros(devices, dtype=np.int64), *unknown)

    def learn(self, number: int, answers: Sequence[Answer]) -> None:
        """Remember the answers of round ``number``."""
        for answer in answers:
            self.asked[answer.device] = number
            if answer.accepted:
                self.loss[answer.device] = answer.loss
                self.examples[answer.device] = answer.examples
                self.seconds[answer.device] = answer.seconds

    def tensors(self) -> dict[str, np.ndarray]:
        """The arrays by name; inverse of :meth:`of`."""
        return {name: getattr(self, name).copy() for name in _PARTS}

    @staticmethod
    def of(tensors: Mapping[str, np.ndarray], devices: int) -> "DeviceMemory":
        """The memory that gave these ``tensors``. Raises ``ValueError`` or ``KeyError`` if they do not fit."""
        new, found = DeviceMemory.new(devices), {}
        for name in _PARTS:
            tensor, known = tensors[name], getattr(new, name)
            if tensor.shape != known.shape or tensor.dtype != known.dtype:
                raise ValueError(f"selection/{name} is {tensor.dtype} {list(tensor.shape)}, expected {known.dtype}")
            found[name] = tensor.copy()
        return DeviceMemory(**found)

    @staticmethod
    def places(share: float, count: int, draw: np.random.Generator) -> int:
        """A ``share`` of ``count`` places: rounded up or down by a draw, so that its mean is exact."""
        return min(count, math.floor(share * count + draw.random()))

    def longest_unasked(self, candidates: np.ndarray, count: int, draw: np.random.Generator) -> np.ndarray:
        """``count`` of ``candidates``, those never asked first, then those asked longest ago; equals are drawn."""
        shuffled = draw.permutation(candidates)
        return shuffled[np.argsort(self.asked[shuffled], kind="stable")][:count]
