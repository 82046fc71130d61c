"""Paying the agents: the rewards of a round's accepted devices, told to their bandits."""

from collections.abc import Sequence
from dataclasses import replace

from slimfed.strategies.fleet import Fleet
from slimfed.strategies.judging import Verdict
from slimfed.strategies.planning import Plan
from slimfed.strategies.protocols import DeviceRecord
from slimfed.strategies.reward import rewards
from slimfed.strategies.settings import StrategySettings


def reward_devices(verdict: Verdict, fleet: Fleet, plans: Sequence[Plan], settings: StrategySettings) -> Verdict:
    """The verdict with the devices' rewards, after their agents have observed them.

    Running out of memory and coming late are what the arm did: they earn 0, so that the agent turns to another one.
    Dropouts, failures and refused updates say nothing of the arm and teach nothing.
    """
    accepted = [
        (r, r.update, r.completion) for r in verdict.devices if r.update is not None and r.completion is not None
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
    for record in verdict.devices:
        if record.status in ("out-of-memory", "late"):
            device = record.assignment.device
            fleet.devices[device].bandit.observe(record.assignment.round, arms[device], 0.0)
            paid[device] = replace(record, reward=0.0)
    return replace(verdict, devices=tuple(paid.get(record.assignment.device, record) for record in verdict.devices))
