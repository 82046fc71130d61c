"""When a round closes: pure functions of the times at which updates arrive."""

import math
from collections.abc import Sequence

import numpy as np

from slimfed.strategies.checks.reply_validation import RoundOutcome
from slimfed.strategies.planning import Plan, round_cost
from slimfed.strategies.server.spec import ServerSpec
from slimfed.strategies.server_state import Fleet
from slimfed.strategies.settings import StrategySettings

# A device that is as fast as expected is in time.
_ROUNDING = 1e-9


def slowest_seconds(outcome: RoundOutcome, straggler_seconds: float | None) -> float:
    """When a round that waits for all closes, in seconds after it has opened.

    That is when the slowest accepted device is done, or at the deadline if it is later and a device missed it.
    """
    slowest = max(record.completion.seconds for record in outcome.accepted if record.completion is not None)
    if straggler_seconds is not None and any(record.status != "done" for record in outcome.devices):
        return max(slowest, straggler_seconds)
    return slowest


def closing_seconds(server: ServerSpec, arrivals: Sequence[float], deadline: float) -> float:
    """When a round closes that does not wait for all, in seconds after it has opened.

    ``arrivals``: when the updates of all devices at work arrive, at least one, in any order. Buffered: with update
    number ``server.buffer``, or the last one if they are fewer. Otherwise at the ``deadline``, with the first update if
    none has come by then, or with the last one if that is earlier. All that has arrived by then counts.
    """
    order = sorted(arrivals)
    if server.mode == "buffered":
        return order[min(server.buffer, len(order)) - 1]
    return min(max(deadline, order[0]), order[-1])


def deadline_seconds(fleet: Fleet, settings: StrategySettings, plans: Sequence[Plan]) -> float:
    """The deadline of a round, in seconds after it has opened; infinite if nothing is known to plan one by.

    It is ``server.close_seconds``; else that of the fleet's agent; else the time by which ``server.close_share`` of the
    devices are expected, by their observed paces. Devices that never answered have none.
    """
    server = settings.server
    if server.close_seconds is not None:
        return server.close_seconds
    if fleet.agent.deadline is not None:
        return fleet.agent.deadline
    expected = expected_seconds(fleet, settings, plans)
    if not expected:
        return math.inf
    return float(np.quantile(expected, server.close_share, method="higher")) * (1 + _ROUNDING)


def expected_seconds(fleet: Fleet, settings: StrategySettings, plans: Sequence[Plan]) -> list[float]:
    """Completion seconds of those devices whose pace is known, by this pace."""
    cost = round_cost(fleet, settings)
    paces = [(fleet.devices[plan.assignment.device].pace, plan) for plan in plans]
    return [
        float(cost.times(pace, plan.assignment.structure, [plan.arm])[0]) for pace, plan in paces if pace is not None
    ]
