"""A fleet whose devices have an agent each, which learn by themselves and from neighbours of similar speed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slimfed.clients.seeds import derive
from slimfed.strategies.bandits import state_codec
from slimfed.strategies.bandits.base import BANDITS, Agent, Arm, Bandit, grid
from slimfed.strategies.bandits.fleet_agent import FleetAgent, Kept, Offer, Pull
from slimfed.strategies.bandits.pacing import first_arms, fitting_arms
from slimfed.strategies.bandits.spec import BanditSpec

# Devices on either side, in the order of speed, whose pulls an agent also observes.
_NEIGHBOURS = 4


class IndependentAgents(FleetAgent):
    """One :class:`Bandit` for each device; item n of ``agents`` is that of device n."""

    def __init__(self, spec: BanditSpec, seed: int, devices: int, agents: Sequence[Bandit] | None = None) -> None:
        super().__init__(spec, seed, devices)
        self.pacing = BANDITS[spec.name].usual_pacing if spec.pacing == "auto" else spec.pacing
        self.agents = list(agents or (make_bandit(spec, derive(seed, "bandit", n)) for n in range(devices)))

    def suggest(self, offers: Sequence[Offer]) -> list[Arm]:
        """Every agent's arm, moved to one that fits the round if the job paces and the agent does not pace itself."""
        self._tell(offers, "foreseen")
        limit = self._tell(offers, "times")
        return [self._paced(offer, self.agents[offer.device].suggest(offer.low, offer.high), limit) for offer in offers]

    def _tell(self, offers: Sequence[Offer], kind: str) -> float:
        """Tell agents the times of their arms; returns how long the round lasts at least, by these times."""
        asked = [
            offer
            for offer in offers
            if (self.agents[offer.device].foresees if kind == "foreseen" else self.pacing != "off")
        ]
        seconds: dict[int, np.ndarray] = {}  # of thousands of devices: numbers alone, the arms are listed again
        for offer in asked:
            times = getattr(offer, kind)
            if times is not None:
                seconds[offer.device] = times(grid(self.spec, offer.low, offer.high))
        limit = max((float(each.min()) for each in seconds.values()), default=0.0)
        for offer in asked:
            agent, known = self.agents[offer.device], seconds.get(offer.device)
            if kind == "foreseen" or agent.paced:
                arms = grid(self.spec, offer.low, offer.high) if known is not None else []
                agent.foresee(dict(zip(arms, [] if known is None else known.tolist(), strict=True)), limit)
        return limit

    def _paced(self, offer: Offer, arm: Arm, limit: float) -> Arm:
        """``arm``, or where it does not fit the round, the largest rank with most local steps that fits."""
        if self.pacing == "off" or self.agents[offer.device].paced:
            return arm
        arms = grid(self.spec, arm.pruning_step, arm.pruning_step)
        if offer.times is None:
            fitting = first_arms(arms)
        else:
            fitting = fitting_arms(
                self.pacing, self.spec.slack, dict(zip(arms, offer.times(arms).tolist(), strict=True)), limit
            )
        return arm if arm in fitting else max(fitting, key=lambda each: (each.rank, each.local_steps or 0))

    def observe(self, round: int, pulls: Sequence[Pull]) -> None:
        """Tell every agent its own reward, then the rewards of the devices whose speeds are closest to its device's."""
        for pull in pulls:
            self.agents[pull.device].observe(round, pull.arm, pull.reward)
        order = sorted((pull for pull in pulls if not pull.failed), key=lambda p: (p.reference_seconds, p.device))
        for place, pull in enumerate(order):
            for other in order[max(0, place - _NEIGHBOURS) : place + _NEIGHBOURS + 1]:
                if other is not pull:
                    self.agents[pull.device].observe_neighbour(round, other.arm, other.reward)

    def pack(self) -> Kept:
        """The agents' states, one after another (``state_codec.py``)."""
        return state_codec.pack(self.agents)

    @classmethod
    def unpack(cls, tensors: Mapping[str, np.ndarray], rest: Mapping[str, Any], devices: int) -> "IndependentAgents":
        """The agents that gave these ``tensors`` and ``rest``."""
        return cls.restored(list(state_codec.unpack(tensors, rest)))

    @classmethod
    def restored(cls, states: Sequence[Mapping[str, Any]]) -> "IndependentAgents":
        """Agents from their ``Bandit.state``, in the order of the devices."""
        agents = [restore_bandit(state) for state in states]
        return cls(agents[0].spec, 0, len(agents), agents)


def make_bandit(spec: BanditSpec, seed: int) -> Bandit:
    """A new agent of one device. Raises ``InputError`` if no agent has the name, ``TypeError`` if it is a fleet's."""
    return _of_a_device(BANDITS[spec.name])(spec, seed)


def restore_bandit(state: Mapping[str, Any]) -> Bandit:
    """The agent that gave ``state`` (see ``Bandit.state``), ready to continue to the bit."""
    spec = BanditSpec.model_validate(state["spec"])
    return _of_a_device(BANDITS[spec.name]).restore({**state, "spec": spec})


def _of_a_device(kind: type[Agent]) -> type[Bandit]:
    if not issubclass(kind, Bandit):
        raise TypeError(f"{kind.__name__} is the agent of a fleet, not of one device")
    return kind
