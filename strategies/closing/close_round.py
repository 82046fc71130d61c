"""Closing a round: which updates count in it, which stay in flight, and which came too late."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from slimfed.clients.update import Update
from slimfed.strategies.accumulation import RoundAccumulator
from slimfed.strategies.checks.agreement import update_samples
from slimfed.strategies.checks.reply_validation import RoundOutcome
from slimfed.strategies.closing.held import HeldUpdates
from slimfed.strategies.closing.times import closing_seconds, deadline_seconds, slowest_seconds
from slimfed.strategies.coordinates.global_vector import GlobalVector
from slimfed.strategies.global_update import accumulators
from slimfed.strategies.late_updates.in_flight import InFlight, in_flight_of
from slimfed.strategies.late_updates.staleness import carried_over, change_of, staleness_weight
from slimfed.strategies.planning import Plan
from slimfed.strategies.protocols import DeviceRecord, Event
from slimfed.strategies.round_state import Attempt, RoundPlan, RunContext
from slimfed.strategies.server_state import Fleet

_STALE_REMEDY = "raise server.max_staleness, or server.buffer or server.close_seconds, so that rounds wait longer"


@dataclass(frozen=True)
class ClosedRound:
    """A round after it has closed, before anything has been learnt from it.

    ``outcome``: a record of every device that was asked or whose update arrived. ``accumulated``: all updates that
    count. ``ended``: the plans of the devices whose work has ended, also those of earlier rounds. ``seconds``: from its
    opening to its closing. ``in_flight``: the updates that have not arrived.
    """

    outcome: RoundOutcome
    accumulated: RoundAccumulator
    ended: tuple[Plan, ...]
    seconds: float
    in_flight: tuple[InFlight, ...] = ()


def close_round(
    context: RunContext, fleet: Fleet, plan: RoundPlan, attempt: Attempt, waited_seconds: float
) -> ClosedRound:
    """Close the round of ``plan``, which opened ``waited_seconds`` after the last one closed. ``fleet`` is unchanged.

    In sync mode nothing was in flight, and nothing will be.
    """
    collected = attempt.collected
    if isinstance(collected, HeldUpdates):
        opened = fleet.virtual_clock + waited_seconds
        return _close_early(context, fleet, plan, attempt.outcome, collected.updates, opened)
    assert isinstance(collected, RoundAccumulator)
    seconds = slowest_seconds(attempt.outcome, context.settings.straggler_seconds)
    return ClosedRound(attempt.outcome, collected, plan.plans, seconds)


def _close_early(
    context: RunContext, fleet: Fleet, plan: RoundPlan, outcome: RoundOutcome, updates: Sequence[Update], opened: float
) -> ClosedRound:
    """Close a round that opened at the virtual second ``opened``, and does not wait for all ``updates``."""
    server, number, records = context.settings.server, plan.number, outcome.devices

    # When does it close? Updates that are too stale to count do not close a round, unless there are no others.
    due = _due(fleet.in_flight, records, opened)
    stale = {each.device for each in fleet.in_flight if server.too_stale(number - each.assignment.round)}
    counting = [seconds for device, seconds in due.items() if device not in stale]
    deadline = deadline_seconds(fleet, context.settings, plan.plans)
    seconds = closing_seconds(server, counting or list(due.values()), deadline)
    arrived = {device for device, after in due.items() if after <= seconds}

    # What has arrived by then counts; the rest is in flight.
    late = [each for each in fleet.in_flight if each.device in arrived]
    counted = [update for update in updates if update.device in arrived]
    counted += [_carried_over(context, plan, each) for each in late if each.device not in stale]
    accumulated, agreements = _summed(context, fleet, plan, counted)
    waiting = [each for each in fleet.in_flight if each.device not in arrived]
    waiting += _sent_off(plan, records, [each for each in updates if each.device not in arrived], opened)
    in_flight = {each.device: each for each in waiting}

    shown = [_awaited(record) if record.assignment.device in in_flight else record for record in records]
    shown += [_arrived(each, each.device in stale, seconds - due[each.device]) for each in late]
    events = (*outcome.events, *(_too_stale(number, each) for each in late if each.device in stale))
    ended = [each for each in plan.plans if each.assignment.device not in in_flight]
    ended += [Plan(each.assignment, each.arm) for each in late]
    return ClosedRound(
        RoundOutcome(tuple(sorted(shown, key=lambda each: each.assignment.device)), events, agreements),
        accumulated,
        tuple(ended),
        seconds,
        tuple(in_flight[device] for device in sorted(in_flight)),
    )


def _due(in_flight: Sequence[InFlight], records: Sequence[DeviceRecord], opened: float) -> dict[int, float]:
    """Seconds after the opening at which the update of every device at work arrives."""
    due = {each.device: max(0.0, each.arrival - opened) for each in in_flight}
    return due | {
        record.assignment.device: record.completion.seconds
        for record in records
        if record.report is not None and record.completion is not None
    }


def _carried_over(context: RunContext, plan: RoundPlan, late: InFlight) -> Update:
    """A late update as the round of ``plan`` counts it."""
    weight = staleness_weight(context.settings.server.staleness, plan.number - late.assignment.round)
    return carried_over(late.report, late.change, late.scores, plan.sent.adapter, weight)


def _summed(
    context: RunContext, fleet: Fleet, plan: RoundPlan, updates: Sequence[Update]
) -> tuple[RoundAccumulator, Mapping[int, float]]:
    """The sums of the updates that count, and their agreements if the agent learns from them."""
    settings, space = context.settings, GlobalVector(fleet.adapter, fleet.blueprint)
    asked = {each.assignment.device for each in plan.plans}
    devices = sorted(asked | {update.device for update in updates})
    accumulated = accumulators(settings, fleet, space, plan.number, devices)()
    samples = update_samples(settings, space, plan.number)
    for update in updates:
        accumulated.add(update)
        if samples is not None:
            samples.add(update)
    return accumulated, {} if samples is None else samples.agreements([update.device for update in updates])


def _sent_off(
    plan: RoundPlan, records: Sequence[DeviceRecord], updates: Sequence[Update], opened: float
) -> list[InFlight]:
    """The round's own updates that arrive after it has closed."""
    plans = {each.assignment.device: each for each in plan.plans}
    known = {record.assignment.device: record for record in records}
    return [
        in_flight_of(
            plans[each.device].arm, known[each.device], change_of(each, plan.sent.adapter), each.scores, opened
        )
        for each in updates
    ]


def _awaited(record: DeviceRecord) -> DeviceRecord:
    """The record of a device whose update has not arrived; its results are recorded when it has."""
    return replace(record, status="in-flight", completion=None, report=None, bytes_up=0)


def _arrived(late: InFlight, stale: bool, waited: float) -> DeviceRecord:
    """The record of a device whose update has come late, ``waited`` seconds before the round has closed."""
    completion = late.completion
    return DeviceRecord(
        late.assignment,
        "stale" if stale else "done",
        completion,
        None if stale else late.report,
        None,
        late.bytes_down,
        late.bytes_up,
        completion.joules_in(completion.seconds + waited),
    )


def _too_stale(number: int, late: InFlight) -> Event:
    asked = late.assignment.round
    cause = f"the update was asked for in round {asked} and came in round {number}, too late to count"
    return Event(number, "stale", cause, _STALE_REMEDY, late.device)
