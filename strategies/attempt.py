"""One attempt at a round: sending it to the nodes and checking their replies; repeated below the quorum."""

import math
from collections.abc import Collection, Sequence

from flwr.app import Message
from flwr.serverapp import Grid

from slimfed.clients.errors import SlimfedError
from slimfed.clients.messages.records import decode_phases
from slimfed.clients.messages.size_limit import oversize
from slimfed.clients.telemetry.stopwatch import Stopwatch
from slimfed.strategies.accumulation import GradedAccumulators
from slimfed.strategies.checks.agreement import update_samples
from slimfed.strategies.checks.reply_validation import ReplyValidation, RoundOutcome, ValidationRules
from slimfed.strategies.closing.held import HeldUpdates
from slimfed.strategies.coordinates.global_vector import GlobalVector
from slimfed.strategies.dispatch import NO_NODE, PlansByNode, in_turn, message_parts, to_hosts, train_message
from slimfed.strategies.global_update import accumulators
from slimfed.strategies.planning import Plan
from slimfed.strategies.protocols import Event
from slimfed.strategies.round_state import Attempt, RoundPlan, RunContext
from slimfed.strategies.server_state import Fleet
from slimfed.strategies.transport import stream_replies, wait_for_nodes

_QUORUM_REMEDY = "read the causes; a new run may need a lower deadlines.quorum or fleet.dropout, or longer deadlines"


class QuorumError(SlimfedError, RuntimeError):
    """Too few devices sent a usable update, however often the round was repeated."""


def send_until_quorum(context: RunContext, fleet: Fleet, plan: RoundPlan, grid: Grid, watch: Stopwatch) -> Attempt:
    """Send the round until a quorum of the devices at work has a usable update; the attempt that reached it.

    An update in flight is usable, and one that will arrive after the round has closed is, too.
    Each attempt uses the nodes that are connected at its start. Devices that the clock rules out (memory, dropouts,
    deadlines) would be ruled out again, so then the round is not repeated. Raises :class:`QuorumError` with the first
    cause.
    """
    number, at_work, needed = plan.number, len(plan.plans) + len(fleet.in_flight), quorum(context, fleet, plan)
    for _ in range(context.settings.retries + 1):
        attempt = send(context, fleet, plan, grid, watch)
        outcome = attempt.outcome
        usable = len(outcome.accepted) + len(fleet.in_flight)
        if usable >= needed:
            return attempt
        cause = f"{usable} of {at_work} updates were usable, {needed} are needed"
        for event in (*outcome.events, Event(number, "quorum-missed", cause, _QUORUM_REMEDY)):
            context.recorder.event(event)
        if not any(record.status in ("failed", "rejected") for record in outcome.devices):
            break
    first = next((event.cause for event in outcome.events), "no node replied in time")
    raise QuorumError(f"round {number}: {cause}; first cause: {first}")


def send(context: RunContext, fleet: Fleet, plan: RoundPlan, grid: Grid, watch: Stopwatch) -> Attempt:
    """Send the round once; every reply is checked when it arrives, and its accepted updates are collected."""
    settings, recorder, progress = context.settings, context.recorder, context.progress
    if not plan.plans:  # all that are available are at work
        return Attempt(RoundOutcome((), ()), HeldUpdates(), {}, {}, 0)
    progress.enter("waiting")
    by_node = distribute(context, fleet, plan, grid)
    central = settings.task.privacy.kind == "central"
    rules = ValidationRules(
        settings.straggler_seconds,
        settings.task.adapter,
        settings.real,
        compare=not central,
        examples=context.examples,
    )
    space = GlobalVector(fleet.adapter, fleet.blueprint)
    if settings.server.waits_for_all:
        devices = [each.assignment.device for each in plan.plans]
        sums = GradedAccumulators(accumulators(settings, fleet, space, plan.number, devices))
        samples = update_samples(settings, space, plan.number)
    else:  # which updates count is known when the round closes
        sums, samples = GradedAccumulators(HeldUpdates), None
    validation = ReplyValidation(fleet, plan.plans, context.clock, sums, space, rules, samples)
    # The server has seen these updates, even if the round fails.
    disclosures = recorder.spend(plan.number - 1) if settings.task.privacy.kind == "local" else 0

    def message(node: int, part: Sequence[Plan]) -> Message:
        with watch.phase("encode"):
            return train_message(node, part, fleet, settings, plan.sent.adapter)

    def refusal(message: Message, part: Sequence[Plan]) -> str | None:
        return oversize(message.content, len(part), settings.task.message_mb)

    parts = {node: message_parts(own, settings.task.cohort_size) for node, own in by_node.items() if node != NO_NODE}
    progress.send([_first(part) for own in parts.values() for part in own], len(by_node.get(NO_NODE, ())))
    replies = stream_replies(grid, parts, message, settings.reply_seconds, recorder.stop_requested, refusal)
    nodes: dict[int, int] = {}
    phases: dict[str, float] = {}
    while True:
        with watch.phase("wait"):
            answer = next(replies, None)
        if answer is None:
            break
        with watch.phase("judge"):
            validation.receive(answer.reply, _devices(answer.part), answer.seconds)
            progress.receive(_first(answer.part), len(answer.part))
            node = answer.reply.metadata.src_node_id
            nodes[node] = len(by_node[node])
            for phase, seconds in _phases(answer.reply, answer.seconds).items():
                phases[phase] = phases.get(phase, 0.0) + seconds
    with watch.phase("judge"):
        outcome, collected = validation.finish(absent=_devices(by_node.get(NO_NODE, ())))
    return Attempt(outcome, collected, nodes, phases, disclosures)


def distribute(context: RunContext, fleet: Fleet, plan: RoundPlan, grid: Grid) -> PlansByNode:
    """The plans of each node: a real node serves its own device, simulated devices are divided among all nodes."""
    settings, recorder = context.settings, context.recorder
    if context.roster is None:
        nodes = wait_for_nodes(grid, 1, settings.reply_seconds, recorder.stop_requested)
        return in_turn(plan.plans, nodes, settings.task.cohort_size)
    needed, stop = quorum(context, fleet, plan), recorder.stop_requested
    for event in context.roster.gather(grid, plan.number, needed, settings.reply_seconds, stop):
        recorder.event(event)
    return to_hosts(plan.plans, context.roster.hosts)


def quorum(context: RunContext, fleet: Fleet, plan: RoundPlan) -> int:
    """Number of usable updates that a round needs: ``deadlines.quorum`` of the devices at work, and at least one.

    These are the devices that it asks, and those whose updates are in flight.
    """
    return max(1, math.ceil(context.settings.quorum * (len(plan.plans) + len(fleet.in_flight))))


def _first(plans: Sequence[Plan]) -> int:
    """The first device of a message, which no other message of the round has."""
    return plans[0].assignment.device


def _devices(plans: Sequence[Plan]) -> Collection[int]:
    return {plan.assignment.device for plan in plans}


def _phases(reply: Message, elapsed: float) -> dict[str, float]:
    """Seconds by phase that a node reports; nothing from a reply that is an error."""
    return {} if reply.has_error() else decode_phases(reply.content, elapsed)
