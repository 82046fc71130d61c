"""Paying the agents: the rewards of a round's accepted devices, told to their bandits."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from slimfed.clients.update import Report
from slimfed.strategies.bandits import Arm
from slimfed.strategies.planning import Plan
from slimfed.strategies.protocols import Completion, DeviceRecord
from slimfed.strategies.reward import rewards
from slimfed.strategies.server_state import Fleet
from slimfed.strategies.settings import StrategySettings
from slimfed.strategies.speed_model import Toll
from slimfed.strategies.verdicts import Verdict

# Devices on either side, in the order of their paces, whose pulls an agent overhears.
_NEIGHBOURS = 4


def reward_devices(verdict: Verdict, fleet: Fleet, plans: Sequence[Plan], settings: StrategySettings) -> Verdict:
    """The verdict with the devices' rewards, after their agents have observed them.

    Running out of memory and coming late are what the arm did: they earn 0, so that the agent turns to another one.
    Dropouts, failures and refused updates say nothing of the arm and teach nothing.
    """
    accepted = [
        (r, r.report, r.completion) for r in verdict.devices if r.report is not None and r.completion is not None
    ]
    values = rewards(
        settings.bandit.reward,
        loss_before=[update.loss_before for _, update, _ in accepted],
        loss_after=[update.loss_after for _, update, _ in accepted],
        sparsity_before=[record.assignment.structure.sparsity for record, _, _ in accepted],
        sparsity_after=[update.structure.sparsity for _, update, _ in accepted],
        target=settings.target_sparsity,
        importance=[update.importance for _, update, _ in accepted],
        seconds=[completion.seconds for _, _, completion in accepted],
    )
    arms = {plan.assignment.device: plan.arm for plan in plans}
    paid: dict[int, DeviceRecord] = {}
    for (record, update, _), value in zip(accepted, values.tolist(), strict=True):
        fleet.devices[update.device].bandit.observe(update.round, arms[update.device], value)
        paid[update.device] = replace(record, reward=value)
    if accepted:
        _pool(fleet, accepted, arms, values)
    for record in verdict.devices:
        if record.status in ("out-of-memory", "late"):
            device = record.assignment.device
            fleet.devices[device].bandit.observe(record.assignment.round, arms[device], 0.0)
            paid[device] = replace(record, reward=0.0)
    return replace(verdict, devices=tuple(paid.get(record.assignment.device, record) for record in verdict.devices))


def _pool(
    fleet: Fleet,
    accepted: Sequence[tuple[DeviceRecord, Report, Completion]],
    arms: Mapping[int, Arm],
    values: np.ndarray,
) -> None:
    """Let agents overhear what arms earned the devices whose paces are next to theirs.

    Devices are put in the order of the time that each would take for one and the same round, by its pace.
    """
    _learn_paces(fleet, accepted)
    down, up = (
        float(np.mean([getattr(record, way) for record, _, _ in accepted])) for way in ("bytes_down", "bytes_up")
    )
    told = []
    for (_, update, _), value in zip(accepted, values.tolist(), strict=True):
        pace = fleet.devices[update.device].pace
        told.append((pace.seconds(1.0, down, up) if pace else 0.0, update.device, update.round, value))
    told.sort()
    for position, (_, device, _, _) in enumerate(told):
        for _, other, round, value in told[max(0, position - _NEIGHBOURS) : position + _NEIGHBOURS + 1]:
            if other != device:
                fleet.devices[device].bandit.overhear(round, arms[other], value)


def _learn_paces(fleet: Fleet, accepted: Sequence[tuple[DeviceRecord, Report, Completion]]) -> None:
    toll = Toll(fleet.adapter, fleet.precision)
    for record, update, completion in accepted:
        load = toll.load(record.assignment.structure.sparsity, update.structure.sparsity, record.assignment.rank)
        seen = toll.seen(completion, load, record.bytes_down, record.bytes_up)
        state = fleet.devices[update.device]
        state.pace = seen if state.pace is None else state.pace.then(seen)
