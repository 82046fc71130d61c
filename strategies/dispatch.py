"""Which node serves which devices in a round, and the messages to it."""

from collections.abc import Mapping, Sequence
from itertools import groupby

from flwr.app import Message

from slimfed.clients.adapter import Adapter
from slimfed.clients.messages.quantization import kept
from slimfed.clients.messages.records import Orders, encode_orders
from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.clients.spec import TaskSpec
from slimfed.clients.structure import union
from slimfed.clients.update import Assignment
from slimfed.strategies.planning import Plan
from slimfed.strategies.server_state import Fleet
from slimfed.strategies.settings import StrategySettings

PlansByNode = dict[int, list[Plan]]
"""Plans of each node, by node id."""

NO_NODE = 0
"""Key of the plans of devices that no node hosts at the moment; no node of Flower's has this id."""

# Devices in a message. More devices make replies that need much memory; fewer send the global adapter more often.
_MOST_DEVICES = 200


def to_hosts(plans: Sequence[Plan], hosts: Mapping[int, int]) -> PlansByNode:
    """Every device's plan to the node that hosts it (``hosts``: node id by device), or to ``NO_NODE``."""
    by_node: PlansByNode = {}
    for plan in plans:
        by_node.setdefault(hosts.get(plan.assignment.device, NO_NODE), []).append(plan)
    return by_node


def in_turn(plans: Sequence[Plan], nodes: Sequence[int], cohort_size: int) -> PlansByNode:
    """Whole cohorts of at most ``cohort_size`` devices, given to the ``nodes`` in turn.

    Devices of a cohort have equal local steps. Which share one must not depend on the number of nodes, or rounding
    would. A node that gets none is left out.
    """
    parts = cohorts(sorted(plans, key=lambda plan: plan.assignment.local_steps), cohort_size)
    given = {node: parts[position :: len(nodes)] for position, node in enumerate(nodes)}
    return {node: [plan for cohort in own for plan in cohort] for node, own in given.items() if own}


def message_parts(plans: Sequence[Plan], cohort_size: int) -> list[Sequence[Plan]]:
    """A node's plans, one part for each message to it: whole cohorts, at most 200 devices unless a cohort is larger."""
    parts: list[list[Plan]] = []
    for cohort in cohorts(plans, cohort_size):
        if not parts or len(parts[-1]) + len(cohort) > _MOST_DEVICES:
            parts.append([])
        parts[-1] += cohort
    return list(parts)


def cohorts(plans: Sequence[Plan], cohort_size: int) -> list[list[Plan]]:
    """The ``plans`` cut into cohorts of at most ``cohort_size`` devices in a row that have equal local steps."""
    found: list[list[Plan]] = []
    for _, equal in groupby(plans, lambda plan: plan.assignment.local_steps):
        row = list(equal)
        found += [row[start : start + cohort_size] for start in range(0, len(row), cohort_size)]
    return found


def train_message(
    node: int, plans: Sequence[Plan], fleet: Fleet, settings: StrategySettings, adapter: Adapter
) -> Message:
    """The message that asks ``node`` to train these ``plans`` from the global ``adapter``, as it was rounded."""
    content = encode_orders(orders(plans, fleet, settings.task, adapter))
    number = str(plans[0].assignment.round)
    return Message(content, node, "train", ttl=2 * settings.reply_seconds, group_id=number)


def orders(plans: Sequence[Plan], fleet: Fleet, task: TaskSpec, adapter: Adapter) -> Orders:
    """The orders of a node for these ``plans``, with the part of the global ``adapter`` that its devices need."""
    assignments = tuple(plan.assignment for plan in plans)
    envelope = union(assignment.structure for assignment in assignments)
    rank = max(assignment.rank for assignment in assignments)
    part = narrow(adapter, fleet.blueprint.dense(), envelope, rank)
    return Orders(task, part, envelope, fleet.scores, assignments, _memories(fleet, assignments))


def _memories(fleet: Fleet, assignments: Sequence[Assignment]) -> dict[int, Adapter]:
    """Rounding errors of simulated devices' last updates, by device, in the shapes of their assignments.

    A real device keeps its own.
    """
    memories = {}
    for each in assignments:
        memory = fleet.devices[each.device].memory
        if memory is not None:
            memories[each.device] = kept(memory.adapter, memory.structure, each.structure, each.rank)
    return memories
