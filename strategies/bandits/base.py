"""The interface of a bandit agent, which chooses one device's pruning step, rank and local steps in every round."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from slimfed.clients.registry import Registry
from slimfed.strategies.bandits.spec import BanditSpec, Pacing

# Number of pruning steps among the arms whose times an agent receives.
_GRID = 9


@dataclass(frozen=True)
class Arm:
    """One choice: the fraction of the remaining structure to remove in a round, and the LoRA rank to train with.

    ``local_steps``: optimiser steps of the round; None: as many as the job says (``training.local_steps``).
    """

    pruning_step: float
    rank: int
    local_steps: int | None = None


class Agent:
    """What a job can name as ``bandit.name``: a :class:`Bandit` for each device, or one agent for the whole fleet
    (``fleet_agent.py``)."""

    learns: ClassVar[bool] = True
    """False if rewards do not change choices. Rewards depend on a device's text, so privacy requires False."""

    chooses: ClassVar[bool] = True
    """False if the arm is the same in every round; ``bandit.local_steps = "auto"`` then means the job's own."""

    constant_rank: ClassVar[bool] = False
    """True if a device has the same rank in every round."""

    foresees: ClassVar[bool] = False
    """True if the agent receives the times of arms by the fleet's profiles, which only simulated devices have.

    """

    probes: ClassVar[bool] = True
    """True if an agent that learns needs the losses before and after, which then count as the devices' work."""

    compares: ClassVar[bool] = False
    """True if the agent learns from how far each update moves along with the others (``agreement.py``)."""

    usual_pacing: ClassVar[Pacing] = "off"
    """Pacing where the job leaves it to the agent (``bandit.pacing = "auto"``)."""

    def __init__(self, spec: BanditSpec, seed: int) -> None:
        self.spec = spec
        self.pacing: Pacing = self.usual_pacing if spec.pacing == "auto" else spec.pacing
        self.rng = np.random.Generator(np.random.PCG64(seed))


class Bandit(Agent, ABC):
    """The agent of one device. It returns arms and receives rewards in [0, 1]; it does not depend on models or
    messages.

    The strategy makes one agent per device, and in every round calls :meth:`suggest` once and, if the device's update
    was accepted, :meth:`observe` once. A new kind of agent is one file here, whose class is registered with
    :data:`BANDITS`, or an entry point ``slimfed.bandits`` of another package.
    """

    paced: ClassVar[bool] = False
    """True if the agent paces itself: it receives, by :meth:`foresee`, the times of arms as estimated from its device's
    past rounds. An arm of another agent that does not fit the round is moved to one that does (``pacing.py``)."""

    @abstractmethod
    def suggest(self, low: float, high: float) -> Arm:
        """The arm of the coming round; called before the device's assignment is sent.

        The arm's pruning step lies in [``low``, ``high``], the bounds of the schedule for this device. The range may
        lie outside ``spec.pruning_step``; ``low == high`` fixes the step, so that only the rank is free.
        """

    @abstractmethod
    def observe(self, round: int, arm: Arm, reward: float) -> None:
        """The ``reward`` in [0, 1] that ``arm`` earned in ``round``; called in ascending order of rounds.

        Not called when a device's report is missing or was rejected: such a round gives no information on the arm.
        Raises ``ValueError`` if the reward is not in [0, 1].
        """

    def observe_neighbour(self, round: int, arm: Arm, reward: float) -> None:
        """The ``reward`` that ``arm`` earned on another device of similar speed; called after :meth:`observe`."""

    def arms(self, low: float, high: float) -> list[Arm]:
        """A grid of allowed arms: the keys of :meth:`foresee`'s times (:func:`grid`)."""
        return grid(self.spec, low, high)

    def foresee(self, seconds: Mapping[Arm, float], limit: float) -> None:
        """Take the completion ``seconds`` of each of :meth:`arms` in the coming round; called before :meth:`suggest`.

        Only called if the agent ``foresees`` or is ``paced``. ``seconds`` is empty while the device is unknown.
        ``limit``: seconds that the round lasts at least, the fastest arm of the slowest device.
        """

    def state(self) -> dict[str, Any]:
        """The state from which :meth:`restore` continues to the bit, as JSON values; called at every checkpoint."""
        return {"spec": self.spec.model_dump(mode="json"), "rng": self.rng.bit_generator.state}

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Self:
        """The agent that gave ``state``; called once per device when a run is resumed."""
        agent = cls(BanditSpec.model_validate(state["spec"]), seed=0)
        agent.rng.bit_generator.state = state["rng"]
        return agent

    def draw_rank(self) -> int:
        """A rank of the job, drawn uniformly."""
        return int(self.spec.ranks[self.rng.integers(len(self.spec.ranks))])

    def draw_local_steps(self) -> int | None:
        """A number of local steps of the job, drawn uniformly; None, and no draw, if it leaves no choice."""
        choices = self.spec.local_steps
        return int(choices[self.rng.integers(len(choices))]) if choices else None


BANDITS = Registry[type[Agent]](
    "bandit.name", "slimfed.bandits", Agent, package="slimfed.strategies.bandits", classes=True
)
"""Agents by name, as classes."""


def grid(spec: BanditSpec, low: float, high: float) -> list[Arm]:
    """Allowed arms: 9 pruning steps from ``low`` to ``high`` (or the only one) by all ranks by all local steps."""
    steps = [low] if low == high else np.linspace(low, high, _GRID).tolist()
    local = spec.local_steps or (None,)
    return [Arm(float(step), rank, count) for step in steps for rank in spec.ranks for count in local]


def draw(rng: np.random.Generator, low: float, high: float) -> float:
    """A number drawn uniformly from [``low``, ``high``], and never outside by rounding."""
    return low if low >= high else float(np.clip(rng.uniform(low, high), low, high))


def check_range(low: float, high: float) -> None:
    """Raise ``ValueError`` unless 0 <= ``low`` <= ``high`` <= 1."""
    if not 0.0 <= low <= high <= 1.0:
        raise ValueError(f"a pruning step must be asked for within 0 <= low <= high <= 1, got [{low}, {high}]")


def check_reward(reward: float) -> None:
    """Raise ``ValueError`` unless ``reward`` lies in [0, 1]."""
    if not (math.isfinite(reward) and 0.0 <= reward <= 1.0):
        raise ValueError(f"a reward must lie in [0, 1], got {reward}")
