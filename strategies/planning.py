"""What every device is to do in a round: its agent's arm, turned into an assignment."""

from dataclasses import dataclass

import numpy as np

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.seeds import derive
from slimfed.clients.update import Assignment
from slimfed.strategies.bandits import Arm
from slimfed.strategies.fleet import Fleet
from slimfed.strategies.schedule import learning_rate, pruning_bounds
from slimfed.strategies.settings import StrategySettings


@dataclass(frozen=True)
class Plan:
    """One device's assignment and the arm it came from."""

    assignment: Assignment
    arm: Arm


def plan_round(fleet: Fleet, settings: StrategySettings, number: int) -> tuple[Plan, ...]:
    """Ask every device's agent once, in device order. The agents' random state moves on."""
    training = settings.task.training
    begin, end = learning_rate(training, number)
    evaluated = _evaluated(fleet, settings, number)
    prunes = ADAPTERS[settings.task.adapter.name].prunes(fleet.adapter)
    plans = []
    for device, state in enumerate(fleet.devices):
        sparsity = state.structure.sparsity
        low, high = pruning_bounds(
            sparsity,
            settings.target_sparsity,
            number,
            training.rounds,
            settings.task.pruning.until,
            settings.bandit.pruning_step,
        )
        if not prunes:
            low = high = 0.0
        arm = state.bandit.suggest(low, high)
        assignment = Assignment(
            device=device,
            round=number,
            rank=arm.rank,
            sparsity=max(sparsity, min(settings.target_sparsity, 1 - (1 - sparsity) * (1 - arm.pruning_step))),
            local_steps=training.local_steps,
            learning_rate=begin,
            learning_rate_end=end,
            seed=derive(settings.task.seed, "train", number, device),
            evaluate=device in evaluated,
            structure=state.structure,
        )
        plans.append(Plan(assignment, arm))
    return tuple(plans)


def evaluates(settings: StrategySettings, number: int) -> bool:
    """True if models are measured after round ``number``: on schedule, and always after the last."""
    return number % settings.evaluate_every == 0 or number == settings.task.training.rounds


def _evaluated(fleet: Fleet, settings: StrategySettings, number: int) -> set[int]:
    """Devices whose own models are measured: a seeded sample, all of them in the last round."""
    if number == settings.task.training.rounds:
        return set(range(len(fleet.devices)))
    if not evaluates(settings, number):
        return set()
    draw = np.random.default_rng(derive(settings.task.seed, "evaluate", number))
    return set(draw.permutation(len(fleet.devices))[: settings.evaluate_devices].tolist())
