"""Controls: the same agent without the knowledge that its rewards carry, to show what learning is worth."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from slimfed.strategies.bandits.fleet_agent import Pull


class Shuffle:
    """Outcomes permuted over devices and rounds: every pull gets the outcome of one drawn from all pulls so far.

    An agent that learns as well from these does not learn from what its arms did. ``past``: float64 [pulls, 4], reward,
    losses before and after, and agreement.
    """

    def __init__(self, seed: int, past: np.ndarray | None = None) -> None:
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.past = np.zeros((0, 4)) if past is None else past

    def __call__(self, pulls: Sequence[Pull]) -> list[Pull]:
        """The ``pulls`` with other outcomes; failed ones keep theirs, as memory and deadlines are no reward."""
        done = [pull for pull in pulls if not pull.failed]
        self.past = np.vstack([self.past, *([p.reward, p.loss_before, p.loss_after, p.agreement] for p in done)])
        drawn = iter(self.rng.permutation(len(self.past)).tolist())
        return [pull if pull.failed else self._other(pull, next(drawn)) for pull in pulls]

    def _other(self, pull: Pull, place: int) -> Pull:
        reward, before, after, agreement = self.past[place].tolist()
        return replace(pull, reward=reward, loss_before=before, loss_after=after, agreement=agreement)
