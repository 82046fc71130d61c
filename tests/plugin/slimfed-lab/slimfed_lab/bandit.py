"""An agent that learns which rank pays."""

from collections.abc import Mapping
from typing import Any, Self

from slimfed.strategies.bandits import Arm, Bandit, BanditSpec
from slimfed.strategies.bandits.base import check_range, check_reward, draw

_EXPLORE = 0.2


class GreedyRank(Bandit):
    """The rank with the best mean reward so far, or any rank in one round of five; the pruning step is drawn evenly."""

    def __init__(self, spec: BanditSpec, seed: int) -> None:
        super().__init__(spec, seed)
        self._rewards: dict[int, list[float]] = {}

    def suggest(self, low: float, high: float) -> Arm:
        """An arm whose pruning step lies in [``low``, ``high``]. Draws come from ``self.rng`` alone."""
        check_range(low, high)
        explores = not self._rewards or self.rng.random() < _EXPLORE
        rank = self.draw_rank() if explores else max(self._rewards, key=self._mean)
        return Arm(draw(self.rng, low, high), rank)

    def observe(self, round: int, arm: Arm, reward: float) -> None:
        """Remember the reward of the arm's rank."""
        check_reward(reward)
        self._rewards.setdefault(arm.rank, []).append(reward)

    def state(self) -> dict[str, Any]:
        """Specification, generator and rewards, as JSON values: what a checkpoint keeps."""
        return super().state() | {"rewards": [[rank, rewards] for rank, rewards in self._rewards.items()]}

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Self:
        """The agent that gave ``state``, which goes on as if nothing had happened."""
        agent = super().restore(state)
        agent._rewards = {int(rank): list(rewards) for rank, rewards in state["rewards"]}
        return agent

    def _mean(self, rank: int) -> float:
        return sum(self._rewards[rank]) / len(self._rewards[rank])
