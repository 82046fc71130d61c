"""Predicted times of a round by the devices' profiles, for agents that foresee."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.node.runtime import NodeRuntime
from slimfed.platform.fleet.clock import VirtualClock
from slimfed.platform.fleet.device_costs import DeviceCosts


@dataclass(frozen=True)
class ProfileForecast:
    """Implements ``strategies.protocols.Forecast`` by :class:`DeviceCosts`."""

    clock: VirtualClock
    runtime: NodeRuntime
    adapter: Adapter

    @cached_property
    def costs(self) -> DeviceCosts:
        """The costs of the fleet's devices."""
        runtime = self.runtime
        return DeviceCosts(self.clock, runtime.task, runtime.base, runtime.blueprint, self.adapter)

    def seconds(self, device: int, round: int, before: float, after: float, rank: int, local_steps: int) -> float:
        """Completion seconds with the round's jitter and power mode; infinite if memory does not suffice."""
        completion = self.costs.completion(device, round, before, after, rank, local_steps)
        return float("inf") if completion.out_of_memory else completion.seconds

    def sparsity_to_fit(self, device: int, rank: int) -> float:
        """The least sparsity, in steps of 0.05, at which training fits with the longest texts; 0 if none does."""
        return self.costs.sparsity_to_fit(device, rank) or 0.0

    def first_scores(self) -> np.ndarray:
        """Importance of the base's units by magnitude, float32 [units]."""
        return self.runtime.scores_by_magnitude
