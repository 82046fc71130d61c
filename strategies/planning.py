"""The plan of a round: the fleet's agent chooses an arm for every device, which gives its assignment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.allocation import ALLOCATIONS
from slimfed.clients.allocation.choosing import select_allocated
from slimfed.clients.seeds import derive
from slimfed.clients.structure import Structure
from slimfed.clients.update import Assignment
from slimfed.strategies.bandits import BANDITS, Arm, Offer
from slimfed.strategies.memory_fit import fitted
from slimfed.strategies.privacy import drawn_structure
from slimfed.strategies.protocols import Forecast
from slimfed.strategies.schedule import learning_rate, scheduled_sparsity, sparsity_after, step_bounds
from slimfed.strategies.server_state import Fleet
from slimfed.strategies.settings import StrategySettings
from slimfed.strategies.speed_model import Pace, RoundCost

# Losses before and after take two passes forward each, and a pass forward half of a step on a frozen base.
_PROBE_STEPS = 2.0


@dataclass(frozen=True)
class Plan:
    """One device's assignment and the arm it came from."""

    assignment: Assignment
    arm: Arm


def plan_round(
    fleet: Fleet,
    settings: StrategySettings,
    number: int,
    forecast: Forecast | None,
    devices: Sequence[int] | None = None,
    share: float = 1.0,
) -> tuple[Plan, ...]:
    """Ask the fleet's agent once for arms of ``devices`` (ascending; default: all). Its random state moves on.

    ``share``: of the devices, how many a round asks, so that pruning counts with rounds in which a device takes part.
    ``forecast`` tells which structures fit the devices' memory; without it all are taken to fit. Raises ``ValueError``
    if there is none and the agent foresees.
    """
    training, pruning, target = settings.task.training, settings.task.pruning, settings.target_sparsity
    begin, end = learning_rate(training, number)
    devices = range(len(fleet.devices)) if devices is None else devices
    evaluated = _evaluated(devices, settings, number)
    shared = shared_structure(fleet, settings, number)
    own = {device: shared or fleet.devices[device].structure for device in devices}
    structures = fitted(fleet, settings, own, forecast)
    whole = [device for device in devices if structures[device] == shared] or devices
    calibrating = _calibrating(fleet, settings, number, whole)
    private = settings.task.privacy.kind != "none"
    prunes = shared is None and ADAPTERS[settings.task.adapter.name].prunes(fleet.adapter)
    bounds = {
        device: (0.0, 0.0)
        if not prunes
        else step_bounds(pruning, s.sparsity, target, number, training.rounds, settings.bandit.pruning_step, share)
        for device, s in structures.items()
    }
    arms = fleet.agent.suggest(_offers(fleet, settings, structures, bounds, number, forecast))
    plans = []
    for device, arm in zip(devices, arms, strict=True):
        state, structure = fleet.devices[device], structures[device]
        sparsity = max(structure.sparsity, min(target, sparsity_after(structure.sparsity, arm.pruning_step)))
        if private:  # the server cuts before the round, and the device prunes nothing by itself
            structure = drawn_structure(structure, sparsity, settings.task, target, number, device)
            sparsity = structure.sparsity
        assignment = Assignment(
            device=device,
            round=number,
            rank=arm.rank if state.rank is None else min(arm.rank, state.rank),
            sparsity=sparsity,
            local_steps=arm.local_steps or training.local_steps,
            learning_rate=begin,
            learning_rate_end=end,
            seed=derive(settings.task.seed, "train", number, device),
            evaluate=device in evaluated,
            structure=structure,
            score=shared is not None and not private and _still_scores(fleet, settings, number),
            probed=settings.probes,
            calibrate=settings.task.calibration.tokens if device in calibrating else 0,
        )
        plans.append(Plan(assignment, arm))
    return tuple(plans)


def shared_structure(fleet: Fleet, settings: StrategySettings, number: int) -> Structure | None:
    """The structure that all devices train in round ``number``, chosen by the scores of the rounds before.

    Before the first scores, and before anything is known of the layers' shares, it is the dense structure. None if
    devices have structures of their own.
    """
    pruning = settings.task.pruning
    if pruning.structure != "shared":
        return None
    if not fleet.scores.any() or _lacks_shares(fleet, settings):
        return fleet.structure
    sparsity = scheduled_sparsity(pruning, settings.target_sparsity, number, settings.task.training.rounds)
    return select_allocated(fleet.structure, fleet.scores, sparsity, pruning, fleet.measured)


def _lacks_shares(fleet: Fleet, settings: StrategySettings) -> bool:
    """True if the layers' shares depend on text, and nothing has been measured yet."""
    return ALLOCATIONS[settings.task.pruning.allocation].measures and fleet.measured is None


def _calibrating(fleet: Fleet, settings: StrategySettings, number: int, devices: Sequence[int]) -> set[int]:
    """Of ``devices``, those that measure for the layers' shares in a round: a seeded sample, until they are known."""
    calibration = settings.task.calibration
    prunes = settings.task.pruning.structure == "shared" and settings.target_sparsity > 0
    if not prunes or calibration.source != "devices" or not _lacks_shares(fleet, settings):
        return set()
    draw = np.random.default_rng(derive(settings.task.seed, "calibrate", number))
    chosen = draw.permutation(len(devices))[: calibration.devices].tolist()
    return {devices[place] for place in chosen}


def _still_scores(fleet: Fleet, settings: StrategySettings, number: int) -> bool:
    """True if scores of round ``number`` are needed to choose what is removed after it."""
    target = settings.target_sparsity
    scheduled = scheduled_sparsity(settings.task.pruning, target, number, settings.task.training.rounds)
    undecided = not fleet.scores.any() or _lacks_shares(fleet, settings)
    return target > 0.0 and (scheduled < target or undecided)


def evaluates(settings: StrategySettings, number: int) -> bool:
    """True if models are measured after round ``number``: on schedule, and always after the last."""
    return number % settings.evaluate_every == 0 or number == settings.task.training.rounds


def writes(settings: StrategySettings, number: int) -> bool:
    """True if a language model completes prompts after round ``number``: after the last, and as often as asked for."""
    every = settings.task.generate.every
    return number == settings.task.training.rounds or (every > 0 and number % every == 0)


def evaluated_examples(settings: StrategySettings, number: int) -> int:
    """Test examples for the global model after round ``number``, a sample; 0: all of them, as after the last."""
    return 0 if number == settings.task.training.rounds else settings.evaluate_examples


def _offers(
    fleet: Fleet,
    settings: StrategySettings,
    structures: Mapping[int, Structure],
    bounds: Mapping[int, tuple[float, float]],
    number: int,
    forecast: Forecast | None,
) -> list[Offer]:
    """What each device with a structure may be given.

    Its times are by its observed pace, or by its profile if the agent foresees.
    """
    foresees = BANDITS[settings.bandit.name].foresees
    if foresees and forecast is None:
        raise ValueError("bandit.name: an agent foresees, but nobody can tell it the profiles")
    cost = round_cost(fleet, settings)

    def observed(device: int, pace: Pace, arms: Sequence[Arm]) -> np.ndarray:
        return cost.times(pace, structures[device], arms)

    def foreseen(device: int, told: Forecast, arms: Sequence[Arm]) -> np.ndarray:
        start, usual = structures[device].sparsity, settings.task.training.local_steps

        def seconds(arm: Arm) -> float:
            end = sparsity_after(start, arm.pruning_step)
            return told.seconds(device, number, start, end, arm.rank, arm.local_steps or usual)

        return np.array([seconds(arm) for arm in arms])

    return [
        Offer(
            device,
            *bounds[device],
            times=None if pace is None else partial(observed, device, pace),
            foreseen=partial(foreseen, device, forecast) if foresees and forecast is not None else None,
        )
        for device, pace in ((device, fleet.devices[device].pace) for device in structures)
    ]


def round_cost(fleet: Fleet, settings: StrategySettings) -> RoundCost:
    """What arms cost any device of this fleet."""
    probes = _PROBE_STEPS if settings.probes else 0.0
    return RoundCost(fleet.adapter, fleet.precision, settings.task.training.local_steps, probes)


def _evaluated(devices: Sequence[int], settings: StrategySettings, number: int) -> set[int]:
    """Of the ``devices`` of a round, those whose own models are measured: a seeded sample, all in the last round."""
    if number == settings.task.training.rounds:
        return set(devices)
    if not evaluates(settings, number):
        return set()
    draw = np.random.default_rng(derive(settings.task.seed, "evaluate", number))
    chosen = draw.permutation(len(devices))[: settings.evaluate_devices].tolist()
    return {devices[place] for place in chosen}
