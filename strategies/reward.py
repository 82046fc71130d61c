"""The rewards of a round, and telling the fleet's agent what came of its arms.

FedSpine (arXiv 2501.02438) rewards loss decrease, pruning progress, the importance of the LoRA update and a completion
time close to the others', but its formula is not public; this one is our reconstruction.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from slimfed.clients.update import Report
from slimfed.strategies.bandits import Arm, Pull
from slimfed.strategies.bandits.spec import RewardSpec
from slimfed.strategies.checks.outliers import largest_distance
from slimfed.strategies.checks.reply_validation import RoundOutcome
from slimfed.strategies.planning import Plan, round_cost
from slimfed.strategies.protocols import Completion, DeviceRecord
from slimfed.strategies.server_state import Fleet
from slimfed.strategies.settings import StrategySettings
from slimfed.strategies.speed_model import RoundCost

_TINY = 1e-12
# Importance is linear in weights and gradients: ten times as large each is a hundred times.
_MOST_IMPORTANT = 100.0


@dataclass(frozen=True)
class RewardTerms:
    """Inputs of the rewards of one round: vectors [participants], all of the same length.

    ``loss_before``/``loss_after``: mean loss (nats) on the same fixed batches. ``sparsity_before``/``sparsity_after``:
    in [0, 1]. ``importance``: that of the update (``Report.importance``). ``seconds``: completion time.
    """

    loss_before: ArrayLike
    loss_after: ArrayLike
    sparsity_before: ArrayLike
    sparsity_after: ArrayLike
    importance: ArrayLike
    seconds: ArrayLike


@dataclass(frozen=True)
class _Accepted:
    """A device whose update was accepted."""

    record: DeviceRecord
    report: Report
    completion: Completion


def reward_devices(
    outcome: RoundOutcome, fleet: Fleet, plans: Sequence[Plan], settings: StrategySettings, number: int
) -> RoundOutcome:
    """The outcome of round ``number`` with the devices' rewards, after the agent has observed them.

    ``plans``: of the devices whose work has ended in the round, maybe begun in an earlier one.

    Running out of memory and missing a deadline are caused by the arm, so they give a reward of 0. Dropouts, failures
    and refused updates do not depend on the arm, so the agent is not told of them. With ``bandit.control`` it is told
    permuted outcomes, or none. The reward of an agent that learns from agreement is the agreement, cut to [0, 1].
    """
    accepted = [
        _Accepted(record, record.report, record.completion)
        for record in outcome.devices
        if record.report is not None and record.completion is not None
    ]
    values = rewards(settings.bandit.reward, _terms(accepted), settings.target_sparsity).tolist()
    if accepted:
        _learn_paces(fleet, accepted, round_cost(fleet, settings))
    pulls = _pulls(fleet, accepted, values, outcome, {plan.assignment.device: plan.arm for plan in plans})
    if settings.bandit.control != "still" and pulls:
        fleet.agent.observe(number, fleet.shuffle(pulls) if fleet.shuffle else pulls)
    rewarded = {pull.device: pull.reward for pull in pulls}
    devices = (
        replace(record, reward=rewarded.get(record.assignment.device, record.reward)) for record in outcome.devices
    )
    return replace(outcome, devices=tuple(devices))


def _pulls(
    fleet: Fleet,
    accepted: Sequence[_Accepted],
    values: Sequence[float],
    outcome: RoundOutcome,
    arms: Mapping[int, Arm],
) -> list[Pull]:
    """What came of the arms: of accepted updates, then of arms that did not fit their devices."""
    down = float(np.mean([each.record.bytes_down for each in accepted])) if accepted else 0.0
    up = float(np.mean([each.record.bytes_up for each in accepted])) if accepted else 0.0
    pulls = []
    for each, value in zip(accepted, values, strict=True):
        report, pace = each.report, fleet.devices[each.report.device].pace
        reference = pace.seconds(1.0, down, up) if pace else 0.0
        agreement = outcome.agreements.get(report.device, math.nan)
        if math.isfinite(agreement):
            value = min(max(agreement, 0.0), 1.0)
        losses = report.loss_before, report.loss_after
        pulls.append(
            Pull(report.device, arms[report.device], value, *losses, agreement, each.completion.seconds, reference)
        )
    for record in outcome.devices:
        if record.status in ("out-of-memory", "late"):
            device = record.assignment.device
            pulls.append(Pull(device, arms[device], 0.0, math.nan, math.nan))
    return pulls


def rewards(spec: RewardSpec, terms: RewardTerms, target: float) -> np.ndarray:
    """Rewards in [0, 1], float64 [participants], of the devices whose updates were accepted in one round.

    With L the loss on the same fixed batches before and after, s the sparsity, s* its ``target``, I the importance of
    the update, T the completion time in ``seconds`` and Tbar its mean over the participants::

        g = loss * clip((L0 - L1) / L0, 0, 1) + pruning * clip((s1 - s0) / (s* - s0), 0, 1) + importance * I / max(I)
        reward = g / (1 + time_penalty * abs(T - Tbar) / Tbar)

    A device without update is no participant, so it affects neither the mean time nor the largest importance. Of six or
    more participants an importance counts up to a hundred times the median, so that a false one does not take the
    others' part away. A part that cannot be computed (a loss of zero, NaN, nothing left to prune) counts as 0. Raises
    ``ValueError`` if the lengths differ or a time is negative or not finite.
    """
    columns = (np.asarray(column, dtype=np.float64) for column in vars(terms).values())
    before, after, start, end, size, times = columns
    if before.ndim != 1 or any(column.shape != before.shape for column in (after, start, end, size, times)):
        raise ValueError("all columns of a round must be vectors with one entry for each participant")
    if not np.isfinite(times).all() or (times < 0).any():
        raise ValueError("completion times must be finite and not negative")
    if not before.size:
        return np.zeros(0)
    known = np.isfinite(size)
    size = np.where(known, np.minimum(size, largest_distance(size[known].tolist(), _MOST_IMPORTANT)), size)
    with np.errstate(invalid="ignore"):  # an infinite loss before and after: no number, counts as 0 below
        decrease = before - after
    gain = (
        spec.loss * _share(decrease, before)
        + spec.pruning * _share(end - start, target - start)
        + spec.importance * _share(size, np.max(size, where=np.isfinite(size), initial=0.0))
    )
    mean = times.mean()
    delay = np.abs(times - mean) / mean if mean > 0 else np.zeros_like(times)
    return np.clip(gain / (1.0 + spec.time_penalty * delay), 0.0, 1.0)


def _share(part: np.ndarray, whole: np.ndarray | float) -> np.ndarray:
    """``part / whole`` within [0, 1]; 0 where either is not finite or ``whole`` is not positive."""
    part, whole = np.broadcast_arrays(part, whole)
    usable = np.isfinite(part) & np.isfinite(whole) & (whole > _TINY)
    shares = np.divide(part, whole, out=np.zeros_like(part), where=usable)
    return np.clip(shares, 0.0, 1.0)


def _terms(accepted: Sequence[_Accepted]) -> RewardTerms:
    return RewardTerms(
        loss_before=[each.report.loss_before for each in accepted],
        loss_after=[each.report.loss_after for each in accepted],
        sparsity_before=[each.record.assignment.structure.sparsity for each in accepted],
        sparsity_after=[each.report.structure.sparsity for each in accepted],
        importance=[each.report.importance for each in accepted],
        seconds=[each.completion.seconds for each in accepted],
    )


def _learn_paces(fleet: Fleet, accepted: Sequence[_Accepted], cost: RoundCost) -> None:
    for each in accepted:
        record, report, given = each.record, each.report, each.record.assignment
        load = cost.load(given.structure.sparsity, report.structure.sparsity, given.rank, given.local_steps)
        pace = cost.pace(each.completion, load, record.bytes_down, record.bytes_up)
        state = fleet.devices[report.device]
        state.pace = pace if state.pace is None else state.pace.smoothed(pace)
