"""The plan of a round: every agent chooses an arm, which gives its device's assignment."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.pruning.selection import select
from slimfed.clients.seeds import derive
from slimfed.clients.structure import Structure
from slimfed.clients.update import Assignment
from slimfed.strategies.bandits import Arm, Bandit
from slimfed.strategies.protocols import Forecast
from slimfed.strategies.schedule import learning_rate, scheduled_sparsity, sparsity_after, step_bounds
from slimfed.strategies.server_state import Fleet
from slimfed.strategies.settings import StrategySettings
from slimfed.strategies.speed_model import RoundCost


@dataclass(frozen=True)
class Plan:
    """One device's assignment and the arm it came from."""

    assignment: Assignment
    arm: Arm


def plan_round(fleet: Fleet, settings: StrategySettings, number: int, forecast: Forecast | None) -> tuple[Plan, ...]:
    """Ask every device's agent once, in device order. The agents' random state moves on.

    ``forecast`` is only asked if an agent foresees; raises ``ValueError`` if there is none then.
    """
    training, pruning, target = settings.task.training, settings.task.pruning, settings.target_sparsity
    begin, end = learning_rate(training, number)
    evaluated = _evaluated(fleet, settings, number)
    shared = shared_structure(fleet, settings, number) if pruning.structure == "shared" else None
    structures = [shared or device.structure for device in fleet.devices]
    prunes = shared is None and ADAPTERS[settings.task.adapter.name].prunes(fleet.adapter)
    bounds = [
        (0.0, 0.0)
        if not prunes
        else step_bounds(pruning, s.sparsity, target, number, training.rounds, settings.bandit.pruning_step)
        for s in structures
    ]
    _tell_forecast_times([device.bandit for device in fleet.devices], structures, bounds, number, forecast)
    _tell_observed_times(fleet, structures, bounds)
    plans = []
    for device, state in enumerate(fleet.devices):
        sparsity = structures[device].sparsity
        arm = state.bandit.suggest(*bounds[device])
        assignment = Assignment(
            device=device,
            round=number,
            rank=arm.rank if state.rank is None else min(arm.rank, state.rank),
            sparsity=max(sparsity, min(target, sparsity_after(sparsity, arm.pruning_step))),
            local_steps=training.local_steps,
            learning_rate=begin,
            learning_rate_end=end,
            seed=derive(settings.task.seed, "train", number, device),
            evaluate=device in evaluated,
            structure=structures[device],
            score=shared is not None and _still_scores(fleet, settings, number),
        )
        plans.append(Plan(assignment, arm))
    return tuple(plans)


def shared_structure(fleet: Fleet, settings: StrategySettings, number: int) -> Structure:
    """The structure that all devices train in round ``number``, chosen by the scores of the rounds before.

    Before the first scores it is the dense structure.
    """
    if not fleet.scores.any():
        return fleet.structure
    pruning = settings.task.pruning
    sparsity = scheduled_sparsity(pruning, settings.target_sparsity, number, settings.task.training.rounds)
    return select(fleet.structure, fleet.scores, sparsity, pruning.scope)


def _still_scores(fleet: Fleet, settings: StrategySettings, number: int) -> bool:
    """True if scores of round ``number`` are needed to choose what is removed after it."""
    target = settings.target_sparsity
    scheduled = scheduled_sparsity(settings.task.pruning, target, number, settings.task.training.rounds)
    return target > 0.0 and (scheduled < target or not fleet.scores.any())


def evaluates(settings: StrategySettings, number: int) -> bool:
    """True if models are measured after round ``number``: on schedule, and always after the last."""
    return number % settings.evaluate_every == 0 or number == settings.task.training.rounds


def evaluated_examples(settings: StrategySettings, number: int) -> int:
    """Test examples for the global model after round ``number``, a sample; 0: all of them, as after the last."""
    return 0 if number == settings.task.training.rounds else settings.evaluate_examples


def _tell_forecast_times(
    agents: Sequence[Bandit],
    structures: Sequence[Structure],
    bounds: Sequence[tuple[float, float]],
    number: int,
    forecast: Forecast | None,
) -> None:
    """Tell agents that foresee the seconds of every arm by the profiles, and how long the round lasts at least."""
    if not any(agent.foresees for agent in agents):
        return
    if forecast is None:
        raise ValueError("bandit.name: an agent foresees, but nobody can tell it the profiles")

    def seconds(device: int, arm: Arm) -> float:
        start = structures[device].sparsity
        return forecast.seconds(device, number, start, sparsity_after(start, arm.pruning_step), arm.rank)

    times = [{arm: seconds(device, arm) for arm in agent.arms(*bounds[device])} for device, agent in enumerate(agents)]
    limit = max(min(each.values()) for each in times)
    for agent, each in zip(agents, times, strict=True):
        agent.foresee(each, limit)


def _tell_observed_times(fleet: Fleet, structures: Sequence[Structure], bounds: Sequence[tuple[float, float]]) -> None:
    """Tell paced agents the seconds of every arm by their devices' observed paces; of a device without, nothing."""
    cost = RoundCost(fleet.adapter, fleet.precision)
    times: dict[int, np.ndarray] = {}  # of thousands of devices: numbers alone, the arms are listed again
    for device, state in enumerate(fleet.devices):
        if state.bandit.paced:
            arms = state.bandit.arms(*bounds[device])
            known = {} if state.pace is None else cost.times(state.pace, structures[device], arms)
            times[device] = np.array([known[arm] for arm in arms] if known else [])
            structures[device].forget()
    limit = max((float(each.min()) for each in times.values() if each.size), default=0.0)
    for device, each in times.items():
        agent = fleet.devices[device].bandit
        arms = agent.arms(*bounds[device]) if each.size else []
        agent.foresee(dict(zip(arms, each.tolist(), strict=True)), limit)


def _evaluated(fleet: Fleet, settings: StrategySettings, number: int) -> set[int]:
    """Devices whose own models are measured: a seeded sample, all of them in the last round."""
    if number == settings.task.training.rounds:
        return set(range(len(fleet.devices)))
    if not evaluates(settings, number):
        return set()
    draw = np.random.default_rng(derive(settings.task.seed, "evaluate", number))
    return set(draw.permutation(len(fleet.devices))[: settings.evaluate_devices].tolist())
