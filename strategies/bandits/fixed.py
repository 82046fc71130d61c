"""The same arm in every round: the baseline of methods that do not adapt to a device."""

from slimfed.strategies.bandits.base import Arm, Bandit, check_range, check_reward


class Fixed(Bandit):
    """``spec.fixed_step`` (default: the middle of the range) and ``spec.fixed_rank`` (default: the largest)."""

    name = "fixed"

    def suggest(self, low: float, high: float) -> Arm:
        """The fixed step, moved to the nearest allowed one, and the fixed rank."""
        check_range(low, high)
        step = self.spec.fixed_step if self.spec.fixed_step is not None else sum(self.spec.pruning_step) / 2
        rank = self.spec.fixed_rank if self.spec.fixed_rank is not None else self.spec.ranks[-1]
        return Arm(min(max(step, low), high), rank)

    def observe(self, round: int, arm: Arm, reward: float) -> None:
        """Nothing is learnt."""
        check_reward(reward)
