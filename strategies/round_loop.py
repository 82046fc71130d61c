"""One round of FedSpine over a fleet of unequal devices (arXiv 2501.02438, reconstructed), step by step."""

import time

from flwr.serverapp import Grid

from slimfed.clients.messages.quantization import compensated
from slimfed.clients.telemetry.stopwatch import Stopwatch
from slimfed.strategies.attempt import send_until_quorum
from slimfed.strategies.closing.close_round import close_round
from slimfed.strategies.fleet_update import settle_clock, settle_memories, settle_ranks, settle_structures
from slimfed.strategies.global_update import aggregate_round, optimize, round_error
from slimfed.strategies.memory_fit import memory_event
from slimfed.strategies.participants import choose_participants, expected_participants, observe_answers
from slimfed.strategies.planning import evaluated_examples, evaluates, plan_round, shared_structure, writes
from slimfed.strategies.privacy import most_disclosed
from slimfed.strategies.protocols import RoundRecord
from slimfed.strategies.reward import reward_devices
from slimfed.strategies.round_record import RoundMeasures, round_record
from slimfed.strategies.round_state import RoundedAdapter, RoundPlan, RunContext
from slimfed.strategies.server_state import Fleet


def run_round(context: RunContext, fleet: Fleet, number: int, grid: Grid) -> RoundRecord:
    """Run round ``number`` (1-based), update ``fleet`` in place, and record both.

    Raises ``QuorumError``, ``NobodyAvailableError``, ``TimeoutError`` (no nodes) or ``StopRequestedError``. Then
    ``fleet`` is no longer that of the last finished round; its checkpoint is.
    """
    settings, started, watch = context.settings, time.monotonic(), Stopwatch()
    context.progress.begin(number, expected_participants(context, fleet))

    # 1. Plan: who takes part; the agent chooses their arms; the global adapter is rounded to the precision of messages.
    with watch.phase("plan"):
        participants = choose_participants(context, fleet, number, grid)
        context.progress.expect(len(participants.devices))
        small = memory_event(fleet, settings, number, context.forecast) if number == 1 else None
        for event in (*participants.events, *([small] if small else [])):
            context.recorder.event(event)
        plans = plan_round(fleet, settings, number, context.forecast, participants.devices, participants.share)
        plan = RoundPlan(number, plans, rounded_adapter(fleet), shared_structure(fleet, settings, number))

    # 2. Send the plans, check and collect the updates as they arrive; repeat below the quorum.
    attempt = send_until_quorum(context, fleet, plan, grid, watch)
    nodes, node_phases, disclosures = attempt.nodes, attempt.node_phases, attempt.disclosures

    context.progress.enter("aggregating")
    with watch.phase("aggregate"):
        # 3. Close the round: by the virtual clock, which updates count in it, and which arrive later.
        closed = close_round(context, fleet, plan, attempt, participants.waited_seconds)
        fleet.in_flight, accumulated, seconds = closed.in_flight, closed.accumulated, closed.seconds

        # 4. Reward: the agents observe the rewards of their arms, and the selection the answers.
        with watch.phase("reward"):
            outcome = reward_devices(closed.outcome, fleet, closed.ended, settings, number)
            observe_answers(fleet, number, outcome.devices)
        reports = outcome.reports

        # 5. Aggregate: the mean over the owners; under central privacy of clipped updates, with noise.
        aggregate = aggregate_round(settings, fleet, plan.plans, accumulated)
        error = round_error(settings, fleet, number, aggregate.adapter, accumulated.kept_updates(), len(reports))

        # 6. Apply the server optimiser and the adapter method's decision: the next global adapter.
        step = optimize(context, fleet, number, aggregate.adapter, accumulated.kept_updates())
        fleet.clipping_norm = aggregate.clipping_norm
        fleet.adapter, fleet.server_memory = step.adapter, step.memory

        # 7. Update the fleet: scores, structures, ranks, rounding errors, virtual time.
        if settings.task.privacy.kind == "none":
            fleet.learn_scores(*accumulated.scores())
            fleet.learn_shares(accumulated.measured())
        settle_structures(fleet, settings, plan.plans, closed.ended, reports, plan.shared)
        settle_ranks(fleet, closed.ended, reports)
        settle_memories(fleet, plan.sent.rounding_error, reports)
        fleet.count_asked(participants.devices)
        settle_clock(fleet, number, seconds, participants.waited_seconds)
        del attempt, closed, accumulated, aggregate, step  # as large as adapters, and evaluation may need the memory

    # 8. Central privacy: the new global adapter is one more disclosure of the devices' text.
    if settings.task.privacy.kind == "central":
        disclosures = context.recorder.spend(number - 1)
    disclosures = most_disclosed(fleet, disclosures)

    # 9. Evaluate the global model in its own structure.
    with watch.phase("evaluate"):
        if due := evaluates(settings, number):
            context.progress.enter("evaluating")
        examples = evaluated_examples(settings, number)
        evaluation = None
        if due:
            writing = writes(settings, number)
            evaluation = context.evaluator.evaluate(fleet.adapter, fleet.structure, examples, write=writing)
        last = number == settings.task.training.rounds
        held_out = context.evaluator.held_out(fleet.adapter, fleet.structure) if last else None

    # 10. Record the round with its checkpoint.
    context.progress.enter("recording")
    phases = {"server": watch.seconds, "nodes": node_phases}
    measures = RoundMeasures(evaluation, held_out, error, disclosures, seconds, started, nodes, phases)
    record = round_record(settings, fleet, number, outcome, participants, measures)
    context.recorder.record(record, *fleet.checkpoint())
    return record


def rounded_adapter(fleet: Fleet) -> RoundedAdapter:
    """The global adapter in the precision of messages, with the last round's rounding error added before rounding."""
    if fleet.precision == "fp32":
        return RoundedAdapter(fleet.adapter, None)
    return RoundedAdapter(*compensated(fleet.adapter, fleet.memory, fleet.precision))
