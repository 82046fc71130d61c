"""Bandit agents by name. A new one is one file here and one line below."""

from collections.abc import Mapping
from typing import Any

from slimfed.clients.errors import InputError
from slimfed.strategies.bandits.base import Arm, Bandit
from slimfed.strategies.bandits.e_ucb import EUcb
from slimfed.strategies.bandits.fixed import Fixed
from slimfed.strategies.bandits.oracle import Oracle
from slimfed.strategies.bandits.random import Random
from slimfed.strategies.bandits.s_ucb import SUcb
from slimfed.strategies.bandits.spec import BanditSpec
from slimfed.strategies.bandits.thompson import Thompson

BANDITS: dict[str, type[Bandit]] = {
    "s-ucb": SUcb,
    "e-ucb": EUcb,
    "thompson": Thompson,
    "random": Random,
    "fixed": Fixed,
    "oracle": Oracle,
}


def make_bandit(spec: BanditSpec, seed: int) -> Bandit:
    """A new agent. Raises ``InputError`` if no agent has the name."""
    return _kind(spec.name)(spec, seed)


def restore_bandit(state: Mapping[str, Any]) -> Bandit:
    """The agent that gave ``state`` (see ``Bandit.state``), ready to continue to the bit."""
    spec = BanditSpec.model_validate(state["spec"])
    return _kind(spec.name).restore({**state, "spec": spec})


def _kind(name: str) -> type[Bandit]:
    if name not in BANDITS:
        raise InputError(f"bandit.name: unknown agent {name!r}; valid: {', '.join(BANDITS)}")
    return BANDITS[name]


__all__ = ["BANDITS", "Arm", "Bandit", "BanditSpec", "make_bandit", "restore_bandit"]
