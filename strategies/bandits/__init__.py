"""Bandit agents by name. A new one is one file here, whose class is registered with ``BANDITS``."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from slimfed.clients.seeds import derive
from slimfed.strategies.bandits.base import BANDITS, Agent, Arm, Bandit
from slimfed.strategies.bandits.fleet_agent import FleetAgent, Offer, Pull
from slimfed.strategies.bandits.independent import IndependentAgents, make_bandit, restore_bandit
from slimfed.strategies.bandits.spec import BanditSpec


def make_agent(spec: BanditSpec, seed: int, devices: int) -> FleetAgent:
    """A fleet's new agent, or an agent for each of its devices. Raises ``InputError`` if no agent has the name."""
    kind = BANDITS[spec.name]
    if issubclass(kind, FleetAgent):
        return kind(spec, derive(seed, "bandit"), devices)
    return IndependentAgents(spec, seed, devices)


def unpack_agent(tensors: Mapping[str, np.ndarray], rest: Mapping[str, Any], devices: int) -> FleetAgent:
    """The agent that gave these ``tensors`` and ``rest`` (``FleetAgent.pack``), ready to continue to the bit."""
    kind = BANDITS[BanditSpec.model_validate(rest["spec"]).name]
    return (kind if issubclass(kind, FleetAgent) else IndependentAgents).unpack(tensors, rest, devices)


__all__ = [
    "BANDITS", "Agent", "Arm", "Bandit", "BanditSpec", "FleetAgent", "IndependentAgents", "Offer", "Pull", "make_agent",
    "make_bandit", "restore_bandit", "unpack_agent",
]  # fmt: skip
