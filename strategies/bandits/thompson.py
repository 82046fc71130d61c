"""Thompson sampling: every arm is chosen with the probability that it is the best one."""

import math
from collections.abc import Mapping
from typing import Any, Self

from slimfed.strategies.bandits.base import BANDITS, Arm, Bandit, check_range, check_reward, draw
from slimfed.strategies.bandits.spec import BanditSpec

# Cells over the range of pruning steps; ranks have a cell each.
_CELLS = 4
# Weight of the mean over all cells in the mean of a cell, in pulls.
_PRIOR_PULLS = 1.0
_LEAST_SPREAD = 0.02


@BANDITS.register("thompson")
class Thompson(Bandit):
    """Gaussian Thompson sampling over a grid of (pruning step, rank, local steps), with discounted pulls.

    The reward is assumed to be additive: mu(cell) = m + u(step cell) + v(rank) + w(local steps), since a device pulls
    about twenty times in a run, and the grid has more cells than that. With N and S the discounted pulls and sums of
    (reward - m) of a cell of one dimension, each effect is drawn from Normal(S / (N + 1), spread^2 / (N + 1)), and the
    cell with the largest sum among those that meet the allowed steps is pulled at a random point.
    """

    def __init__(self, spec: BanditSpec, seed: int) -> None:
        super().__init__(spec, seed)
        self._pulls: list[tuple[int, int, int, int, float]] = []
        self._local = spec.local_steps or (None,)

    def suggest(self, low: float, high: float) -> Arm:
        """A random point of the cell with the largest draw from the posterior."""
        check_range(low, high)
        steps, ranks = self._draws(1, _CELLS), self._draws(2, len(self.spec.ranks))
        counts = self._draws(3, len(self._local)) if len(self._local) > 1 else [0.0]
        spans = [(max(low, a), min(high, b)) for a, b in (self._span(cell) for cell in range(_CELLS))]
        open_cells = [cell for cell, (a, b) in enumerate(spans) if a < b]
        rank = self.spec.ranks[max(range(len(ranks)), key=ranks.__getitem__)]
        local = self._local[max(range(len(counts)), key=counts.__getitem__)]
        if not open_cells:  # one step is allowed, or only steps beyond the cells
            return Arm(draw(self.rng, low, high), rank, local)
        return Arm(draw(self.rng, *spans[max(open_cells, key=steps.__getitem__)]), rank, local)

    def observe(self, round: int, arm: Arm, reward: float) -> None:
        """Store the pull in its cell."""
        check_reward(reward)
        level, count = self.spec.ranks.index(arm.rank), self._local.index(arm.local_steps)
        self._pulls.append((round, self._cell(arm.pruning_step), level, count, reward))

    def state(self) -> dict[str, Any]:
        """Specification, generator and pulls."""
        return super().state() | {"pulls": [list(pull) for pull in self._pulls]}

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Self:
        """The agent that gave ``state``."""
        agent = super().restore(state)
        for t, cell, level, *count, reward in state["pulls"]:  # no count in checkpoints of the first versions
            agent._pulls.append((int(t), int(cell), int(level), int(count[0]) if count else 0, float(reward)))
        return agent

    def _span(self, cell: int) -> tuple[float, float]:
        low, high = self.spec.pruning_step
        return low + (high - low) * cell / _CELLS, low + (high - low) * (cell + 1) / _CELLS

    def _cell(self, step: float) -> int:
        low, high = self.spec.pruning_step
        return 0 if high == low else int(min(_CELLS - 1, max(0, (step - low) / (high - low) * _CELLS)))

    def _draws(self, column: int, cells: int) -> list[float]:
        """One draw of the effect of each row (column 1), rank (column 2) or number of local steps (column 3)."""
        noise = self.rng.standard_normal(cells)
        if not self._pulls:
            return noise.tolist()
        now = self._pulls[-1][0] + 1
        weights = [self.spec.discount ** (now - pull[0]) for pull in self._pulls]
        total = math.fsum(weights)
        mean = math.fsum(w * pull[4] for w, pull in zip(weights, self._pulls, strict=True)) / total
        variance = math.fsum(w * (pull[4] - mean) ** 2 for w, pull in zip(weights, self._pulls, strict=True)) / total
        spread = self.spec.exploration * max(_LEAST_SPREAD, math.sqrt(variance))
        draws = []
        for cell in range(cells):
            own = [(w, pull[4] - mean) for w, pull in zip(weights, self._pulls, strict=True) if pull[column] == cell]
            count = math.fsum(w for w, _ in own) + _PRIOR_PULLS
            draws.append(
                math.fsum(w * gain for w, gain in own) / count + spread * float(noise[cell]) / math.sqrt(count)
            )
        return draws
