"""E-UCB: FedMP's upper confidence bound over intervals of the pruning ratio, at one rank for all."""

import math
from collections.abc import Mapping
from typing import Any, Self

from slimfed.strategies.bandits.base import BANDITS, Arm, Bandit, check_range, check_reward, draw
from slimfed.strategies.bandits.spec import BanditSpec


@BANDITS.register("e-ucb")
class EUcb(Bandit):
    """An upper confidence bound over intervals of the pruning step, at one rank for all.

    FedMP (Jiang et al., ICDE 2022), as far as it is published; the formula is that of the discounted UCB it uses.

    Leaves partition the pruning steps. With lam = ``spec.discount``, N the discounted pulls and R the discounted mean
    reward inside a leaf, and n = max(1, sum of N)::

        U(leaf) = R(leaf) + spec.exploration * sqrt(2 ln n / N(leaf)),  infinite where N = 0

    The leaf with the largest U is pulled at a random point and cut there while it is wider than ``spec.resolution``.
    The rank is ``spec.fixed_rank``, the local steps are ``spec.fixed_local_steps`` (default: the largest); FedMP has
    no ranks. Its reward, the loss decrease divided by |T
    - mean T|, has no bound at T = mean T; all agents here use the reward of ``reward.py``.
    """

    constant_rank = True

    def __init__(self, spec: BanditSpec, seed: int) -> None:
        super().__init__(spec, seed)
        self._pulls: list[tuple[int, float, float]] = []
        self._edges = list(dict.fromkeys(spec.pruning_step))

    def suggest(self, low: float, high: float) -> Arm:
        """A random point of the interval with the largest bound, within the allowed steps."""
        check_range(low, high)
        rank = self.spec.fixed_rank if self.spec.fixed_rank is not None else self.spec.ranks[-1]
        local = self.spec.fixed_local_steps or max(self.spec.local_steps, default=None)
        spans = [(max(low, a), min(high, b)) for a, b in self.leaves() if max(low, a) < min(high, b)]
        if not spans:  # one step is allowed, or only steps beyond the intervals
            return Arm(draw(self.rng, low, high), rank, local)
        bounds = [self._upper_bound((a, b)) for a, b in self.leaves() if max(low, a) < min(high, b)]
        best = [span for span, bound in zip(spans, bounds, strict=True) if bound >= max(bounds)]
        return Arm(draw(self.rng, *best[self.rng.integers(len(best))]), rank, local)

    def observe(self, round: int, arm: Arm, reward: float) -> None:
        """Store the pull and split its interval. Steps outside the intervals count at the nearest edge."""
        check_reward(reward)
        step = min(max(arm.pruning_step, self._edges[0]), self._edges[-1])
        self._pulls.append((round, step, reward))
        for low, high in self.leaves():
            if low < step < high and high - low > self.spec.resolution:
                self._edges = sorted([*self._edges, step])
                return

    def leaves(self) -> list[tuple[float, float]]:
        """Intervals [low, high) that partition the pruning steps, ascending; the last one holds its upper end too."""
        return list(zip(self._edges[:-1], self._edges[1:], strict=True))

    def state(self) -> dict[str, Any]:
        """Specification, generator and raw pulls."""
        return super().state() | {"pulls": [list(pull) for pull in self._pulls]}

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Self:
        """The agent that gave ``state``."""
        agent = super().restore(state)
        for round, step, reward in state["pulls"]:
            agent.observe(round, Arm(step, agent.spec.ranks[-1]), reward)
        return agent

    def _upper_bound(self, leaf: tuple[float, float]) -> float:
        now = self._pulls[-1][0] + 1 if self._pulls else 1
        weights = [self.spec.discount ** (now - round) for round, _, _ in self._pulls]
        inside = [leaf[0] <= step < leaf[1] or step == leaf[1] == self._edges[-1] for _, step, _ in self._pulls]
        count = math.fsum(weight for weight, here in zip(weights, inside, strict=True) if here)
        if count == 0.0:
            return math.inf
        pulls = zip(weights, inside, self._pulls, strict=True)
        mean = math.fsum(weight * pull[2] for weight, here, pull in pulls if here) / count
        return mean + self.spec.exploration * math.sqrt(2.0 * math.log(max(1.0, math.fsum(weights))) / count)
