"""The oracle, which knows the time of every arm: an upper bound for ablations, not a method."""

from collections.abc import Mapping

from slimfed.strategies.bandits.base import BANDITS, Arm, Bandit, check_range, check_reward
from slimfed.strategies.bandits.spec import BanditSpec


@BANDITS.register("oracle")
class Oracle(Bandit):
    """The arm with the largest rank that does not prolong the round.

    A round lasts at least as long as the slowest device's fastest arm. Among the arms that take no longer, the oracle
    takes those with most local steps, of these those with the largest rank, and of these the one that prunes most,
    since early pruning shortens all later rounds. If no arm fits, it takes the fastest.
    """

    learns = False
    foresees = True

    def __init__(self, spec: BanditSpec, seed: int) -> None:
        super().__init__(spec, seed)
        self._best: Arm | None = None

    def foresee(self, seconds: Mapping[Arm, float], limit: float) -> None:
        """Choose the coming round's arm."""
        fitting = [arm for arm, time in seconds.items() if time <= limit]
        fastest = min(seconds, key=lambda arm: (seconds[arm], -arm.rank))
        self._best = max(fitting, key=lambda arm: (arm.local_steps or 0, arm.rank, arm.pruning_step), default=fastest)

    def suggest(self, low: float, high: float) -> Arm:
        """The arm chosen by :meth:`foresee`; without it, the first of the allowed arms."""
        check_range(low, high)
        arm = self._best or self.arms(low, high)[0]
        return Arm(min(max(arm.pruning_step, low), high), arm.rank, arm.local_steps)

    def observe(self, round: int, arm: Arm, reward: float) -> None:
        """Ignore the reward."""
        check_reward(reward)
