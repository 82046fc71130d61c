"""One round of FedSpine over a fleet of unequal devices (arXiv 2501.02438, reconstructed), step by step."""

import time

from flwr.serverapp import Grid

from slimfed.clients.messages.quantization import compensated
from slimfed.clients.stopwatch import Stopwatch
from slimfed.strategies.attempt import send_until_quorum
from slimfed.strategies.fleet_update import settle_clock, settle_memories, settle_ranks, settle_structures
from slimfed.strategies.global_update import aggregate_round, optimize, round_error
from slimfed.strategies.planning import evaluates, plan_round
from slimfed.strategies.protocols import RoundRecord
from slimfed.strategies.reward import reward_devices
from slimfed.strategies.round_record import RoundMeasures, round_record
from slimfed.strategies.round_state import RoundedAdapter, RoundPlan, RunContext
from slimfed.strategies.server_state import Fleet


def run_round(context: RunContext, fleet: Fleet, number: int, grid: Grid) -> RoundRecord:
    """Run round ``number`` (1-based), change ``fleet`` to what it is afterwards, and record both.

    Raises ``QuorumError``, ``TimeoutError`` (no nodes) or ``StopRequestedError``. Then ``fleet`` is no longer that of
    the last finished round; its checkpoint is.
    """
    settings, started, watch = context.settings, time.monotonic(), Stopwatch()

    # 1. Plan: every device's agent chooses an arm; the global adapter is rounded to what messages can carry.
    with watch.phase("plan"):
        plan = RoundPlan(number, plan_round(fleet, settings, number, context.forecast), rounded_adapter(fleet))

    # 2. Send the plans, and check and add up the updates as they come; again while too few of them are usable.
    attempt = send_until_quorum(context, fleet, plan, grid, watch)
    nodes, node_phases, disclosures = attempt.nodes, attempt.node_phases, attempt.disclosures

    with watch.phase("aggregate"):
        # 3. Reward: the agents observe what their arms earned.
        with watch.phase("reward"):
            outcome = reward_devices(attempt.outcome, fleet, plan.plans, settings)
        reports, accumulated = outcome.reports, attempt.accumulated

        # 4. Aggregate: the mean of what devices own, under central privacy of clipped updates and with noise.
        aggregate = aggregate_round(settings, fleet, number, accumulated)
        error = round_error(settings, fleet, number, aggregate.adapter, accumulated.kept_updates(), len(reports))

        # 5. Apply the server optimiser and the adapter method's decision: the next global adapter.
        step = optimize(context, fleet, number, aggregate.adapter, accumulated.kept_updates())
        fleet.clipping_norm = aggregate.clipping_norm
        fleet.adapter, fleet.server_memory = step.adapter, step.memory

        # 6. Settle what the fleet has from now on: scores, structures, ranks, rounding errors, virtual time.
        fleet.learn_scores(*accumulated.scores())
        settle_structures(fleet, settings, plan.plans, reports)
        settle_ranks(fleet, plan.plans, reports)
        settle_memories(fleet, plan.sent.rounding_error, reports)
        seconds = settle_clock(fleet, number, outcome, settings.straggler_seconds)
        del attempt, accumulated, aggregate, step  # as large as adapters, and evaluation may need the memory

    # 7. Central privacy: what is about to be kept and shown tells of the devices' text once more.
    if settings.task.privacy.kind == "central":
        disclosures = context.recorder.spend(number - 1)

    # 8. Evaluate the global model in its own structure.
    with watch.phase("evaluate"):
        due = evaluates(settings, number)
        evaluation = context.evaluator.evaluate(fleet.adapter, fleet.structure) if due else None

    # 9. Record the round with its checkpoint.
    phases = {"server": watch.seconds, "nodes": node_phases}
    measures = RoundMeasures(evaluation, error, disclosures, seconds, started, nodes, phases)
    record = round_record(settings, fleet, number, outcome, measures)
    context.recorder.record(record, *fleet.checkpoint())
    return record


def rounded_adapter(fleet: Fleet) -> RoundedAdapter:
    """The global adapter as messages can carry it, with the last round's rounding error added before rounding."""
    if fleet.precision == "fp32":
        return RoundedAdapter(fleet.adapter, None)
    return RoundedAdapter(*compensated(fleet.adapter, fleet.memory, fleet.precision))
