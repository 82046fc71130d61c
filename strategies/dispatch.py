"""Which node serves which devices in a round, in how many messages, and what these say."""

from collections.abc import Mapping, Sequence

from slimfed.clients.adapter import Adapter
from slimfed.clients.messages.quantization import kept
from slimfed.clients.messages.records import Orders
from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.clients.spec import TaskSpec
from slimfed.clients.structure import union
from slimfed.clients.update import Assignment
from slimfed.strategies.planning import Plan
from slimfed.strategies.server_state import Fleet
from slimfed.strategies.verdicts import NOBODY

Shares = dict[int, list[Plan]]
"""The plans that each node is given, by its id."""

# Devices a message: more make replies that hold much memory, fewer send the global adapter more often.
_PARCEL = 200


def deal_to_hosts(plans: Sequence[Plan], hosts: Mapping[int, int]) -> Shares:
    """Every device's plan to the node that hosts it (``hosts``: device -> node), or to ``NOBODY``."""
    shares: Shares = {}
    for plan in plans:
        shares.setdefault(hosts.get(plan.assignment.device, NOBODY), []).append(plan)
    return shares


def deal_freely(plans: Sequence[Plan], nodes: Sequence[int], cohort_size: int) -> Shares:
    """Whole cohorts, dealt to the ``nodes`` in turn; a node that gets none is left out.

    Which devices share a cohort must not depend on the number of nodes, or rounding would.
    """
    cohorts = [plans[start : start + cohort_size] for start in range(0, len(plans), cohort_size)]
    dealt = {node: cohorts[position :: len(nodes)] for position, node in enumerate(nodes)}
    return {node: [plan for cohort in share for plan in cohort] for node, share in dealt.items() if share}


def parcels(plans: Sequence[Plan], cohort_size: int) -> list[Sequence[Plan]]:
    """A node's plans in as many parts as keep a reply small: whole cohorts."""
    whole = max(1, _PARCEL // cohort_size) * cohort_size
    return [plans[start : start + whole] for start in range(0, len(plans), whole)]


def orders(plans: Sequence[Plan], fleet: Fleet, task: TaskSpec, adapter: Adapter) -> Orders:
    """What a node is told for these ``plans``: of the global ``adapter`` no more than any of the devices needs."""
    assignments = tuple(plan.assignment for plan in plans)
    envelope = union(assignment.structure for assignment in assignments)
    rank = max(assignment.rank for assignment in assignments)
    part = narrow(adapter, fleet.blueprint.dense(), envelope, rank)
    return Orders(task, part, envelope, fleet.scores, assignments, _memories(fleet, assignments))


def _memories(fleet: Fleet, assignments: Sequence[Assignment]) -> dict[int, Adapter]:
    """What simulated devices, which keep nothing, could not send before; a real one remembers it itself."""
    memories = {}
    for each in assignments:
        memory = fleet.devices[each.device].memory
        if memory is not None:
            memories[each.device] = kept(memory.adapter, memory.structure, each.structure, each.rank)
    return memories
