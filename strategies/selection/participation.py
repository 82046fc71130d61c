"""How many devices of a fleet a round asks, and by which selection: the part of ``[fleet]`` that the strategy reads."""

import math
from dataclasses import dataclass
from typing import Literal

All = Literal["all"]


@dataclass(frozen=True)
class Participation:
    """``amount``: "all" devices, a share of them (a float in (0, 1)), or a number of devices (an int from 1).

    ``selection``: name in the registry. ``exploration`` and ``candidates``: options of selections, see
    ``FleetSpec`` of the job file.
    """

    amount: float | int | All = "all"
    selection: str = "random"
    exploration: float = 0.2
    candidates: float = 2.0

    @property
    def everyone(self) -> bool:
        """True if a round asks all devices that it can have, so that nothing is selected."""
        return self.amount == "all"

    def count(self, devices: int) -> int:
        """How many of so many ``devices`` a round asks: a share is rounded to the nearest number, and at least 1."""
        if isinstance(self.amount, str):
            return devices
        if isinstance(self.amount, float):
            return max(1, math.floor(self.amount * devices + 0.5))
        return self.amount

    def share(self, devices: int) -> float:
        """The share of so many ``devices`` that a round asks, in (0, 1]: how often a device can expect to be asked."""
        return min(1.0, self.count(devices) / max(devices, 1))
