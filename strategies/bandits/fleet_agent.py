"""The interface of an agent for a whole fleet: it is offered all devices of a round at once, and learns from all."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from slimfed.strategies.bandits.base import Agent, Arm
from slimfed.strategies.bandits.spec import BanditSpec

Times = Callable[[Sequence[Arm]], np.ndarray]
"""Completion seconds of arms, float64 [arms]."""

Kept = tuple[dict[str, np.ndarray], dict[str, Any]]
"""Tensors and a JSON-able rest."""


@dataclass(frozen=True)
class Offer:
    """One device before a round. ``low`` and ``high``: smallest and largest pruning step by the schedule.

    ``times``: by its observed pace; None before its first update. ``foreseen``: by its profile; None unless the agent
    ``foresees``.
    """

    device: int
    low: float
    high: float
    times: Times | None = None
    foreseen: Times | None = None


@dataclass(frozen=True)
class Pull:
    """What came of a device's arm in a round.

    ``reward``: in [0, 1] by ``reward.py``. ``loss_before``/``loss_after``: mean loss (nats) on the same fixed local
    batches; NaN if there was no update, because the device ran out of memory or missed a deadline by this arm.
    ``agreement``: of its update with the others'; NaN if the agent does not ask for it (``Agent.compares``).
    ``seconds``: its completion time; 0 if there was no update. ``reference_seconds``: that of a round which is the same
    for all devices, by its observed pace.
    """

    device: int
    arm: Arm
    reward: float
    loss_before: float
    loss_after: float
    agreement: float = math.nan
    seconds: float = 0.0
    reference_seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """True if the arm did not fit the device."""
        return not np.isfinite(self.loss_before)


class FleetAgent(Agent, ABC):
    """One agent for a whole fleet. Each round it is asked once, and told once what came of its arms.

    A new one is one file here, whose class is registered with ``BANDITS``, or an entry point ``slimfed.bandits`` of
    another package.
    """

    deadline: float | None = None
    """Seconds by which the arms of the last :meth:`suggest` are to be done; None if the agent plans no such time."""

    def __init__(self, spec: BanditSpec, seed: int, devices: int) -> None:
        super().__init__(spec, seed)
        self.devices = devices

    @abstractmethod
    def suggest(self, offers: Sequence[Offer]) -> list[Arm]:
        """An arm for every offer, in order, with a pruning step in [``low``, ``high``] of the offer."""

    @abstractmethod
    def observe(self, round: int, pulls: Sequence[Pull]) -> None:
        """What came of the arms of ``round``; called once a round, in ascending order.

        Devices that dropped out, failed, or whose updates were refused are not among ``pulls``.
        """

    def pack(self) -> Kept:
        """The state from which :meth:`unpack` continues to the bit; called at every checkpoint."""
        return {}, {"spec": self.spec.model_dump(mode="json"), "rng": self.rng.bit_generator.state}

    @classmethod
    def unpack(cls, tensors: Mapping[str, np.ndarray], rest: Mapping[str, Any], devices: int) -> Self:
        """The agent that gave these ``tensors`` and ``rest``."""
        agent = cls(BanditSpec.model_validate(rest["spec"]), 0, devices)
        agent.rng.bit_generator.state = rest["rng"]
        return agent
