"""S-UCB: an upper confidence bound over boxes of (pruning step, rank) that are split where they are pulled.

FedSpine (arXiv 2501.02438) names the agent but does not publish its details. This reconstruction extends FedMP's E-UCB
(intervals of one pruning ratio, discounted UCB of Garivier and Moulines) to two dimensions. It differs in one respect:
a device pulls about twenty times in a run, and an agent that must first visit every new box would never exploit its
knowledge. Therefore the mean of a box is shrunk towards that of its parent, and the bonus is in units of the rewards'
spread; see :class:`SUcb`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Self

from slimfed.strategies.bandits.base import BANDITS, Arm, Bandit, check_range, check_reward, draw
from slimfed.strategies.bandits.pacing import fitting_arms
from slimfed.strategies.bandits.spec import BanditSpec

# Weight of a parent's mean in the mean of a box, in pulls: decisive with few pulls, negligible with many.
_PARENT_PULLS = 2.0
# The bonus never falls below this spread of rewards, so that equal first rewards do not end exploration.
_LEAST_SPREAD = 0.02


@dataclass(frozen=True)
class Pull:
    """A rewarded arm: its ``step`` within the range of the boxes, and ``level``, the index of its rank and local
    steps.

    ``weight``: 1 for the device's own, ``spec.pooling`` for a neighbour's.
    """

    round: int
    step: float
    level: int
    reward: float
    weight: float = 1.0


@dataclass(frozen=True)
class Box:
    """Pruning steps [``low``, ``high``) (with ``high`` itself if ``closed``) and levels [``first``, ``end``)."""

    low: float
    high: float
    first: int
    end: int
    closed: bool

    def has_step(self, step: float) -> bool:
        """True if ``step`` belongs to this box's steps."""
        return self.low <= step < self.high or (self.closed and step == self.high)

    def contains(self, step: float, level: int) -> bool:
        """True if the point belongs to this box."""
        return self.has_step(step) and self.first <= level < self.end

    def meets(self, low: float, high: float) -> bool:
        """True if an arm of this box can have a step in [``low``, ``high``]."""
        return self.has_step(low) if low == high else max(self.low, low) < min(self.high, high)

    def cut_at_step(self, step: float) -> tuple["Box", "Box"]:
        """Below ``step``, and from ``step`` on."""
        return (
            Box(self.low, step, self.first, self.end, False),
            Box(step, self.high, self.first, self.end, self.closed),
        )

    def cut_between_levels(self) -> tuple["Box", "Box"]:
        """The lower and the upper half of the levels."""
        middle = (self.first + self.end) // 2
        return (
            Box(self.low, self.high, self.first, middle, self.closed),
            Box(self.low, self.high, middle, self.end, self.closed),
        )


@dataclass
class Node:
    """A box, the pulls inside it in the order of their rounds, and the two boxes it was cut into, if it was."""

    box: Box
    pulls: list[Pull] = field(default_factory=list)
    children: tuple["Node", ...] = ()


@BANDITS.register("s-ucb")
class SUcb(Bandit):
    """An upper confidence bound over boxes of pruning steps and ranks, which are split where they are pulled.

    Twenty rounds are few pulls for one device, so pulls of devices of similar speed can count too (pooling). A round
    lasts as long as its slowest device, so an agent keeps to arms that, by its device's past times, will not prolong
    the round (``spec.pacing``). In a paced round a larger rank costs no time, so with ``"fill"`` the agent takes the
    largest rank that fits, and learns only the pruning step.

    Ranks, and numbers of local steps of each, are one dimension: level l is pair l of (rank, local steps), ascending.

    A pull of round t counts w lam^(k-t) in round k, with lam = ``spec.discount``, k the round after the last reward,
    and w = 1 for an own pull and ``spec.pooling`` for a neighbour's.
    With N the discounted pulls and S the discounted rewards inside a box, and n = max(1, N of all)::

        mean(box) = (S + m * mean(parent)) / (N + m)
        U(leaf) = mean(leaf) + spec.exploration * spread * sqrt(2 ln n / (N + m))

    m = 2 pulls is the weight of the parent, and ``spread`` is twice the discounted standard deviation of all rewards.
    The leaf with the largest U among those that meet the allowed steps is pulled at a random point. Its longest side
    (step and rank scaled to [0, 1]) is then cut: at the pulled step while the box is wider than ``spec.resolution``, or
    between two levels. Sums are recomputed from the raw pulls, so that children inherit exactly the pulls of
    their parent. The tree follows from the pulls, so the state consists of the pulls and the random generator.
    """

    paced = True
    usual_pacing = "fill"

    def __init__(self, spec: BanditSpec, seed: int) -> None:
        super().__init__(spec, seed)
        low, high = spec.pruning_step
        self._levels = list(product(spec.ranks, spec.local_steps or (None,)))
        self.root = Node(Box(low, high, 0, len(self._levels), closed=True))
        self._least: dict[int, float] | None = None

    def foresee(self, seconds: Mapping[Arm, float], limit: float) -> None:
        """Restrict the choice to arms that do not prolong the round; without times, to the smallest level."""
        if self.pacing == "off":
            return
        self._least = {} if seconds else {0: 0.0}
        # More pruning is faster, so that every step from the least fitting one on fits.
        for arm in fitting_arms(self.pacing, self.spec.slack, seconds, limit):
            level = self._levels.index((arm.rank, arm.local_steps))
            self._least[level] = min(arm.pruning_step, self._least.get(level, 1.0))

    def suggest(self, low: float, high: float) -> Arm:
        """A random point of the box with the largest bound, within the allowed steps and those that fit the round."""
        check_range(low, high)
        least, self._least = self._least, None
        if least is None:
            least = dict.fromkeys(range(len(self._levels)), 0.0)
        starts = {level: min(max(low, step), high) for level, step in least.items()}
        inner_high = self._clip(high)
        choices = [
            (bound, box, level)
            for box, bound in self._upper_bounds()
            for level, start in starts.items()
            if box.first <= level < box.end and box.meets(self._clip(start), inner_high)
        ]
        best = max(bound for bound, _, _ in choices)
        ties = [(box, level) for bound, box, level in choices if bound >= best - 1e-12]
        box, level = ties[self.rng.integers(len(ties))]
        start, pair = starts[level], self._levels[level]
        if self._clip(start) == inner_high:  # one step is allowed, or only steps beyond the boxes
            return Arm(draw(self.rng, start, high), *pair)
        return Arm(draw(self.rng, max(box.low, self._clip(start)), min(box.high, inner_high)), *pair)

    def observe(self, round: int, arm: Arm, reward: float) -> None:
        """Store the pull and split its box. Steps outside the boxes count at the nearest edge."""
        self._learn(round, arm, reward, 1.0)

    def observe_neighbour(self, round: int, arm: Arm, reward: float) -> None:
        """Store the pull with the weight ``spec.pooling`` and split its box."""
        if self.spec.pooling > 0.0:
            self._learn(round, arm, reward, self.spec.pooling)

    def _learn(self, round: int, arm: Arm, reward: float, weight: float) -> None:
        """Add a pull to all boxes that contain it, and split the smallest of them."""
        check_reward(reward)
        if self.root.pulls and round < self.root.pulls[-1].round:
            raise ValueError(f"rewards must come in ascending rounds, got {round} after {self.root.pulls[-1].round}")
        if arm.rank not in self.spec.ranks:
            raise ValueError(f"rank {arm.rank} is none of {list(self.spec.ranks)}")
        level = self._levels.index((arm.rank, arm.local_steps))
        pull = Pull(round, self._clip(arm.pruning_step), level, reward, weight)
        node = self.root
        node.pulls.append(pull)
        while node.children:
            node = next(child for child in node.children if child.box.contains(pull.step, pull.level))
            node.pulls.append(pull)
        self._split(node, pull)

    def state(self) -> dict[str, Any]:
        """Specification, generator and raw pulls; local steps of 0 are those of the job."""
        levels = [(rank, count or 0) for rank, count in self._levels]
        return super().state() | {
            "pulls": [[p.round, p.step, *levels[p.level], p.reward, p.weight] for p in self.root.pulls]
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Self:
        """The agent that gave ``state``; its tree is rebuilt from the pulls."""
        agent = super().restore(state)
        for round, step, rank, *count, reward, weight in state["pulls"]:  # no count in checkpoints of first versions
            agent._learn(round, Arm(step, rank, (count and int(count[0])) or None), reward, weight)
        return agent

    def leaves(self) -> list[Node]:
        """The nodes whose boxes partition the configurations, in the order of the tree."""
        found, waiting = [], [self.root]
        while waiting:
            node = waiting.pop()
            waiting.extend(reversed(node.children))
            if not node.children:
                found.append(node)
        return found

    def _clip(self, step: float) -> float:
        return min(max(step, self.root.box.low), self.root.box.high)

    def _split(self, node: Node, pull: Pull) -> None:
        box, whole = node.box, self.root.box
        width, levels = box.high - box.low, box.end - box.first
        sides: list[tuple[float, tuple[Box, Box]]] = []
        if width > self.spec.resolution and box.low < pull.step < box.high:
            sides.append((width / (whole.high - whole.low), box.cut_at_step(pull.step)))
        if levels > 1:
            sides.append((levels / whole.end, box.cut_between_levels()))
        if sides:
            _, boxes = max(sides, key=lambda side: side[0])
            node.children = tuple(Node(b, [p for p in node.pulls if b.contains(p.step, p.level)]) for b in boxes)

    def _upper_bounds(self) -> list[tuple[Box, float]]:
        """The leaves' boxes with U of each."""
        pulls = self.root.pulls
        if not pulls:
            return [(self.root.box, math.inf)]
        now = pulls[-1].round + 1
        total, gain = self._sums(pulls, now)
        mean = gain / total
        variance = sum(p.weight * self.spec.discount ** (now - p.round) * (p.reward - mean) ** 2 for p in pulls) / total
        spread = max(_LEAST_SPREAD, 2.0 * math.sqrt(variance))
        bonus = self.spec.exploration * spread * math.sqrt(2.0 * math.log(max(1.0, total)))
        bounds: list[tuple[Box, float]] = []
        waiting = [(self.root, mean)]
        while waiting:
            node, borrowed = waiting.pop()
            count, gain = self._sums(node.pulls, now)
            estimate = (gain + _PARENT_PULLS * borrowed) / (count + _PARENT_PULLS)
            if node.children:
                waiting.extend((child, estimate) for child in reversed(node.children))
            else:
                bounds.append((node.box, estimate + bonus / math.sqrt(count + _PARENT_PULLS)))
        return bounds

    def _sums(self, pulls: list[Pull], now: int) -> tuple[float, float]:
        """Discounted number and discounted rewards of ``pulls`` in round ``now``."""
        count = gain = 0.0
        for pull in pulls:
            weight = pull.weight * self.spec.discount ** (now - pull.round)
            count += weight
            gain += weight * pull.reward
        return count, gain
