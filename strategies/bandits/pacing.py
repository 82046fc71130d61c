"""Pacing: the arms that do not prolong a round, by the times that a device was seen to need."""

from collections.abc import Mapping

from slimfed.strategies.bandits.base import Arm
from slimfed.strategies.bandits.spec import Pacing


def fitting_arms(pacing: Pacing, slack: float, seconds: Mapping[Arm, float], limit: float) -> list[Arm]:
    """The arms that a device may choose from, in the order of ``seconds``, their completion times.

    ``limit``: seconds that the round lasts at least, the fastest arm of the slowest device. An arm fits if it takes at
    most ``slack`` times as long; if none does, the fastest is left. With ``pacing = "fill"`` only those of
    the largest rank, and of these only those with most local steps. All arms with ``"off"``.
    """
    if pacing == "off" or not seconds:
        return list(seconds)
    fitting = [arm for arm, time in seconds.items() if time <= slack * limit]
    if not fitting:
        fitting = [min(seconds, key=lambda arm: seconds[arm])]
    if pacing == "within":
        return fitting
    most = max((arm.rank, arm.local_steps or 0) for arm in fitting)
    return [arm for arm in fitting if (arm.rank, arm.local_steps or 0) == most]


def first_arms(arms: list[Arm]) -> list[Arm]:
    """The arms of a device whose times are unknown: those of the smallest rank with the fewest local steps."""
    least = min((arm.rank, arm.local_steps or 0) for arm in arms)
    return [arm for arm in arms if (arm.rank, arm.local_steps or 0) == least]
