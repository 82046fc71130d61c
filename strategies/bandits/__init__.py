"""Bandit agents by name. A new one is one file here, whose class is registered with ``BANDITS``."""

from collections.abc import Mapping
from typing import Any

from slimfed.strategies.bandits.base import BANDITS, Arm, Bandit
from slimfed.strategies.bandits.spec import BanditSpec


def make_bandit(spec: BanditSpec, seed: int) -> Bandit:
    """A new agent. Raises ``InputError`` if no agent has the name."""
    return BANDITS[spec.name](spec, seed)


def restore_bandit(state: Mapping[str, Any]) -> Bandit:
    """The agent that gave ``state`` (see ``Bandit.state``), ready to continue to the bit."""
    spec = BanditSpec.model_validate(state["spec"])
    return BANDITS[spec.name].restore({**state, "spec": spec})


__all__ = ["BANDITS", "Arm", "Bandit", "BanditSpec", "make_bandit", "restore_bandit"]
