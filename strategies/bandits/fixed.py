"""The same arm in every round: the baseline of methods that do not adapt to a device."""

from collections.abc import Mapping
from typing import Any, Self

from slimfed.strategies.bandits.base import BANDITS, Arm, Bandit, check_range, check_reward
from slimfed.strategies.bandits.spec import BanditSpec


@BANDITS.register("fixed")
class Fixed(Bandit):
    """The same pruning step, rank and local steps in every round.

    They are ``spec.fixed_step`` (default: the middle of the range), ``spec.fixed_rank`` and ``spec.fixed_local_steps``
    (default: the largest). With ``spec.spread_ranks`` the device's rank is drawn once from all ranks, as HetLoRA gives
    unequal devices theirs.
    """

    learns = False
    chooses = False
    constant_rank = True

    def __init__(self, spec: BanditSpec, seed: int) -> None:
        super().__init__(spec, seed)
        self._local_steps = spec.fixed_local_steps or max(spec.local_steps, default=None)
        self._rank = self.draw_rank() if spec.spread_ranks else spec.fixed_rank or spec.ranks[-1]

    def suggest(self, low: float, high: float) -> Arm:
        """The fixed step, moved to the nearest allowed one, with the fixed rank and local steps."""
        check_range(low, high)
        step = self.spec.fixed_step if self.spec.fixed_step is not None else sum(self.spec.pruning_step) / 2
        return Arm(min(max(step, low), high), self._rank, self._local_steps)

    def observe(self, round: int, arm: Arm, reward: float) -> None:
        """Ignore the reward."""
        check_reward(reward)

    def state(self) -> dict[str, Any]:
        """Specification, generator and rank."""
        return super().state() | {"rank": self._rank}

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Self:
        """The agent that gave ``state``."""
        agent = super().restore(state)
        agent._rank = int(state["rank"])
        return agent
