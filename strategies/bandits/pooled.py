"""One agent for the fleet: it learns what local steps and rank are worth, and fills a round of the best length.

The design is ours. What a device needs for an arm is physics, which its observed pace tells (``speed_model.py``). What
an arm is worth for the global model is common to the fleet, so that eighty devices are eighty samples a round of one
unknown, instead of one sample each of eighty unknowns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from slimfed.strategies.bandits.base import BANDITS, Arm, grid
from slimfed.strategies.bandits.fleet_agent import FleetAgent, Kept, Offer, Pull
from slimfed.strategies.bandits.spec import BanditSpec

# Worth grows with rank^0.3: the rounds to a target of fixed ranks on development splits (benchmarks/README.md). It is
# not learnt, because a comparison within a round shows too much: a device of a smaller rank moves fewer of the numbers
# that the others move, but a fleet of that rank would learn the same with the numbers that it has.
_RANK = 0.2
# Prior of the exponent by which worth grows with a doubling of local steps, natural logarithm: steps^0.5. It is so wide
# that one round of a few devices outweighs it.
_STEPS, _STEPS_DEVIATION = 0.35, 0.25
# Lengths of a round that are compared, and draws of the devices' deviations from their predicted times.
_LENGTHS = 64
_DRAWS = 16
# First guess of the deviation of log seconds from their prediction, and the weight of earlier rounds in it.
_SPREAD = 0.2
_SPREAD_MEMORY = 0.7
_NEWTON_STEPS = 8


@BANDITS.register("pooled")
class Pooled(FleetAgent):
    """One model of worth for the whole fleet; the round whose worth a second is largest, filled by every device.

    **Worth.** The outcome of a pull is its agreement a: how far the update moves the adapter to where the rest of the
    fleet moves it (``agreement.py``). In each round a ~ c exp(th x), with x = log2 of the local steps, is fitted by
    quasi-likelihood with a variance proportional to the mean (McCullagh and Nelder, 1989, chapter 9), since agreements
    late in a run are mostly noise and may be negative. Estimates of rounds add up as normal distributions, discounted
    by ``spec.discount``. A round uses one draw from the posterior (Thompson sampling), its spread times
    ``spec.exploration``.

    **Length of the round.** For each of 64 deadlines and each rank, every device gets the local steps that are worth
    most among those that its pace lets it finish in time. The pair with the largest sum of worth over the expected
    length of the round wins. This length is that of the slowest device, and expected over the deviations from predicted
    times seen so far, since of many devices that just fit one will be late.

    **Rank** is one for the fleet, since a rank that few devices train follows the text of these few.

    A device whose times are unknown gets the smallest rank with middling local steps. Pruning is as early as the
    schedule allows, since every later round is shorter for it. After running out of memory, or missing the deadline, a
    device is offered smaller ranks only.
    """

    compares = True
    probes = False

    def __init__(self, spec: BanditSpec, seed: int, devices: int) -> None:
        super().__init__(spec, seed, devices)
        self._precision = self._weighted = 0.0
        self._spread = _SPREAD
        self._predicted: dict[int, float] = {}
        self._too_large: dict[int, int] = {}

    def suggest(self, offers: Sequence[Offer]) -> list[Arm]:
        """The arms of the round with the largest worth a second."""
        self._predicted, self.deadline = {}, None
        chosen = {offer.device: self._first(offer) for offer in offers}
        known = [offer for offer in offers if offer.times is not None]
        if known:
            arms = [grid(self.spec, offer.high, offer.high) for offer in known]
            table = self._table(known, arms)
            ranks, steps, self.deadline = self._best_round(table)
            for n, (offer, place) in enumerate(zip(known, ranks * table.steps + steps, strict=True)):
                chosen[offer.device] = arms[n][place]
                self._predicted[offer.device] = float(table.times[n, ranks[n], steps[n]])
        return [chosen[offer.device] for offer in offers]

    def _first(self, offer: Offer) -> Arm:
        """The arm of a device whose times are unknown."""
        choices = self.spec.local_steps
        return Arm(offer.high, self.spec.ranks[0], choices[(len(choices) - 1) // 2] if choices else None)

    def _table(self, offers: Sequence[Offer], arms: Sequence[Sequence[Arm]]) -> "_Table":
        ranks, steps = len(self.spec.ranks), max(1, len(self.spec.local_steps))
        times = np.stack([_times(offer, mine) for offer, mine in zip(offers, arms, strict=True)])
        largest = [
            max(0, sum(rank < self._too_large.get(offer.device, np.inf) for rank in self.spec.ranks) - 1)
            for offer in offers
        ]
        worths = np.exp(_doublings(arms[0]) * self._exponent() + _RANK * np.log2([arm.rank for arm in arms[0]]))
        return _Table(times.reshape(-1, ranks, steps), worths.reshape(ranks, steps), np.array(largest))

    def _exponent(self) -> float:
        """The exponent of local steps for this round: a draw from what is known of it."""
        if self.spec.control == "still":
            return _STEPS
        return self.exponent + self.spec.exploration * self._variance**0.5 * float(self.rng.standard_normal())

    @property
    def exponent(self) -> float:
        """The posterior's mean of the exponent by which worth grows with a doubling of local steps."""
        return self._variance * (_STEPS / _STEPS_DEVIATION**2 + self._weighted)

    @property
    def _variance(self) -> float:
        return 1.0 / (_STEPS_DEVIATION**-2 + self._precision)

    def _best_round(self, table: "_Table") -> tuple[np.ndarray, np.ndarray, float]:
        """Places of each device's rank and local steps in the round with the largest worth a second, and its length."""
        noise = np.exp(self._spread * self.rng.standard_normal((_DRAWS, len(table.times))))
        best, found = -1.0, None
        for rank in range(len(table.worths)):
            own = table.own_ranks(rank)
            for deadline in table.deadlines(own):
                steps = table.steps_by(own, deadline)
                gain = table.worth(own, steps) / table.seconds(own, steps, noise)
                if gain > best:
                    best, found = gain, (own, steps, float(deadline))
        if found is None:
            raise ValueError("the times of this fleet's arms are not finite")
        return found

    def observe(self, round: int, pulls: Sequence[Pull]) -> None:
        """Learn worth from agreements, the spread of times, and which ranks do not fit."""
        for pull in pulls:
            if pull.failed:
                self._too_large[pull.device] = min(pull.arm.rank, self._too_large.get(pull.device, pull.arm.rank))
        self._learn_spread(pulls)
        told = [pull for pull in pulls if np.isfinite(pull.agreement)]
        if len(told) > 2:
            outcomes = np.array([pull.agreement for pull in told])
            estimate, information = _fit(_doublings([pull.arm for pull in told]), outcomes, self.exponent)
            self._precision = self.spec.discount * self._precision + information
            self._weighted = self.spec.discount * self._weighted + information * estimate

    def _learn_spread(self, pulls: Sequence[Pull]) -> None:
        ratios = [
            np.log(pull.seconds / self._predicted[pull.device])
            for pull in pulls
            if pull.seconds > 0 and self._predicted.get(pull.device, 0.0) > 0
        ]
        if ratios:
            seen = float(np.mean(np.square(ratios)))
            self._spread = float(np.sqrt(_SPREAD_MEMORY * self._spread**2 + (1 - _SPREAD_MEMORY) * seen))

    def pack(self) -> Kept:
        """The posterior, the spread of times, and the ranks that did not fit."""
        tensors, rest = super().pack()
        return tensors, rest | {
            "precision": self._precision,
            "weighted": self._weighted,
            "spread": self._spread,
            "too_large": [list(item) for item in self._too_large.items()],
        }

    @classmethod
    def unpack(cls, tensors: Mapping[str, np.ndarray], rest: Mapping[str, Any], devices: int) -> Self:
        """The agent that gave this state."""
        agent = super().unpack(tensors, rest, devices)
        agent._precision, agent._weighted = float(rest["precision"]), float(rest["weighted"])
        agent._spread = float(rest["spread"])
        agent._too_large = {int(device): int(rank) for device, rank in rest["too_large"]}
        return agent


@dataclass(frozen=True)
class _Table:
    """Seconds of every device's arms, float64 [devices, ranks, steps], and the worth of arms, float64 [ranks, steps].

    ``largest``: place of the largest rank that a device can hold, int64 [devices].
    """

    times: np.ndarray
    worths: np.ndarray
    largest: np.ndarray

    @property
    def steps(self) -> int:
        """Number of choices of local steps."""
        return self.worths.shape[1]

    def own_ranks(self, rank: int) -> np.ndarray:
        """Places of the devices' ranks if the fleet's is ``rank``, int64 [devices]."""
        return np.minimum(self.largest, rank)

    def deadlines(self, ranks: np.ndarray) -> np.ndarray:
        """64 lengths of a round, from the shortest that all can keep at these ``ranks`` to the longest."""
        times = self._at(ranks)
        return np.geomspace(times.min(axis=1).max(), times.max(), _LENGTHS)

    def steps_by(self, ranks: np.ndarray, deadline: float) -> np.ndarray:
        """Places of the local steps that are worth most by the ``deadline``, or else the fastest, int64 [devices]."""
        times = self._at(ranks)
        latest = np.maximum(deadline * (1 + 1e-9), times.min(axis=1))
        return np.where(times <= latest[:, None], self.worths[ranks], -np.inf).argmax(axis=1)

    def worth(self, ranks: np.ndarray, steps: np.ndarray) -> float:
        """The sum of worth of each device's arm."""
        return float(self.worths[ranks, steps].sum())

    def seconds(self, ranks: np.ndarray, steps: np.ndarray, noise: np.ndarray) -> float:
        """The expected length of the round, by factors on the devices' times, float64 [draws, devices]."""
        own = self.times[np.arange(len(ranks)), ranks, steps]
        return float((own * noise).max(axis=1).mean())

    def _at(self, ranks: np.ndarray) -> np.ndarray:
        return self.times[np.arange(len(ranks)), ranks]


def _times(offer: Offer, arms: Sequence[Arm]) -> np.ndarray:
    if offer.times is None:
        raise ValueError(f"the times of device {offer.device} are not known")
    return offer.times(arms)


def _doublings(arms: Sequence[Arm]) -> np.ndarray:
    """log2 of the local steps, float64 [arms]; 0 where the job leaves no choice."""
    return np.log2([arm.local_steps or 1 for arm in arms])


def _fit(x: np.ndarray, outcomes: np.ndarray, start: float) -> tuple[float, float]:
    """The exponent th by which ``outcomes`` [n] grow with ``x`` [n], and the information on it.

    Quasi-likelihood of the mean c exp(th x) and a variance proportional to it, by Newton's method from ``start``. There
    is no information if all ``x`` are equal, or if the outcomes are not positive on average.
    """
    level = float(outcomes.mean())
    if level <= 0 or np.ptp(x) == 0:
        return start, 0.0
    x = x - x.mean()
    estimate = start
    for _ in range(_NEWTON_STEPS):
        shape = np.exp(np.clip(x * estimate, -4.0, 4.0))
        mean = level * shape / shape.mean()
        centred = x - (mean @ x) / mean.sum()
        information = float(mean @ centred**2)
        estimate += float(np.clip(centred @ (outcomes - mean) / information, -0.5, 0.5))
    dispersion = float(((outcomes - mean) ** 2 / mean).sum()) / max(len(outcomes) - 2, 1)
    return estimate, information / max(dispersion, 1e-3 * level)
