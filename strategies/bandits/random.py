"""Arms drawn uniformly: a baseline without learning."""

from slimfed.strategies.bandits.base import BANDITS, Arm, Bandit, check_range, check_reward, draw


@BANDITS.register("random")
class Random(Bandit):
    """Pruning step, rank and local steps drawn uniformly and independently in every round."""

    learns = False

    def suggest(self, low: float, high: float) -> Arm:
        """An arm drawn from the allowed pruning steps, the job's ranks and its numbers of local steps."""
        check_range(low, high)
        return Arm(draw(self.rng, low, high), self.draw_rank(), self.draw_local_steps())

    def observe(self, round: int, arm: Arm, reward: float) -> None:
        """Ignore the reward."""
        check_reward(reward)
