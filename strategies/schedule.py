"""The bounds of a device's pruning step, and the learning rate, of a round."""

import math

from slimfed.clients.spec import PruningSpec, TrainingSpec


def sparsity_after(sparsity: float, step: float) -> float:
    """Cumulative sparsity once the fraction ``step`` of what remains has been removed."""
    return 1.0 - (1.0 - sparsity) * (1.0 - step)


def step_to(sparsity: float, target: float) -> float:
    """The fraction of what remains that leads from ``sparsity`` to ``target``; 0 if it is already reached."""
    if sparsity >= target:
        return 0.0
    return 1.0 - (1.0 - target) / (1.0 - sparsity)


def scheduled_sparsity(pruning: PruningSpec, target: float, round: int, rounds: int) -> float:
    """Sparsity to reach in ``round`` (1-based) by a schedule that asks no agent.

    cubic: s_t = s* (1 - (1 - t / n)^3) up to round n = ceil(until * rounds) (Zhu and Gupta, arXiv 1710.01878);
    one-shot: s* from the first round on.
    """
    if pruning.schedule == "one-shot":
        return target
    last = max(1, math.ceil(pruning.until * rounds - 1e-9))
    return target * (1.0 - (1.0 - min(1.0, round / last)) ** 3)


def step_bounds(
    pruning: PruningSpec,
    sparsity: float,
    target: float,
    round: int,
    rounds: int,
    step_range: tuple[float, float],
    share: float = 1.0,
) -> tuple[float, float]:
    """Smallest and largest fraction of the remaining structure that a device may remove in ``round`` (1-based).

    They are equal unless an agent chooses (``pruning.schedule = "bandit"``). ``share``: of the rounds in which a device
    can expect to take part.
    """
    if pruning.schedule == "bandit":
        return pruning_bounds(sparsity, target, round, rounds, pruning.until, step_range, share)
    step = step_to(sparsity, scheduled_sparsity(pruning, target, round, rounds))
    return step, step


def pruning_bounds(
    sparsity: float,
    target: float,
    round: int,
    rounds: int,
    until: float,
    step_range: tuple[float, float],
    share: float = 1.0,
) -> tuple[float, float]:
    """Smallest and largest fraction of the remaining structure that a device may remove in ``round`` (1-based).

    The upper end never leads past ``target``. The lower end keeps the target within reach of round ``ceil(until *
    rounds)`` by steps of at most ``step_range[1]``. If such steps no longer suffice (a high target, few rounds, missed
    rounds), the device gets the constant step that reaches the target, even if it is above the range. From the last
    round of the window on, this step is the whole remaining sparsity, so no device that keeps taking part ends below
    the target. Of the rounds that follow, a device takes part in ``share``, rounded down.
    """
    missing = step_to(sparsity, target)
    if missing == 0.0:
        return 0.0, 0.0
    later = math.floor(share * max(0, math.ceil(until * rounds - 1e-9) - round) + 1e-9)
    smallest, largest = step_range
    keep = 1.0 - missing
    constant = missing if later == 0 else 1.0 - keep ** (1.0 / (later + 1))
    if constant >= largest:
        return constant, constant
    reach = (1.0 - largest) ** later  # share that the rounds after this one can leave; 0 for very many rounds
    needed = 1.0 - keep / reach if reach > keep else 0.0
    low = min(max(smallest, needed), missing)
    return low, max(low, min(largest, missing))


def learning_rate(spec: TrainingSpec, round: int) -> tuple[float, float]:
    """Learning rate at the first step of ``round`` (1-based) and after its last one.

    The decay runs over all steps of the run and ends at 0: linear, lr * (1 - x), or cosine, lr * (1 + cos(pi * x)) / 2,
    with x the finished share of the run.
    """
    return _rate(spec, (round - 1) / spec.rounds), _rate(spec, round / spec.rounds)


def _rate(spec: TrainingSpec, progress: float) -> float:
    if spec.schedule == "constant":
        return spec.learning_rate
    if spec.schedule == "linear":
        return spec.learning_rate * (1.0 - progress)
    return spec.learning_rate * (1.0 + math.cos(math.pi * progress)) / 2.0
