"""The fleet's state after a round: structures, ranks, rounding errors, virtual time."""

from collections.abc import Collection, Sequence

import numpy as np

from slimfed.clients.adapter import Adapter
from slimfed.clients.pruning.selection import select
from slimfed.clients.structure import Structure
from slimfed.clients.update import Report
from slimfed.strategies.planning import Plan
from slimfed.strategies.privacy import shares_kept
from slimfed.strategies.server_state import Fleet, Memory
from slimfed.strategies.settings import StrategySettings


def settle_structures(
    fleet: Fleet,
    settings: StrategySettings,
    plans: Sequence[Plan],
    ended: Sequence[Plan],
    reports: Sequence[Report],
    shared: Structure | None = None,
) -> None:
    """Set the structure of every device and of the global model.

    Own structures are those of the accepted ``reports``; devices that were not asked, or are still at work, keep
    theirs. The global model has the fleet's mean sparsity by the fleet's scores. Where the work of a part of the fleet
    has ``ended``, it has the mean of that part, since devices that are seldom asked are pruned late, and never less
    than before.

    A shared structure was decided before the round: ``shared`` (None: the largest of the ``plans``, of all devices that
    were asked). It is that of devices that were not asked, too. Under privacy the devices' own structures were decided
    before, so that no answer changes them.
    """
    pruning = settings.task.pruning
    private = settings.task.privacy.kind != "none"
    if pruning.structure == "shared" or private:
        for plan in plans:
            fleet.devices[plan.assignment.device].structure = plan.assignment.structure
    if pruning.structure == "shared":
        # A device of small memory trains a part of the shared structure.
        if shared is not None and len(plans) < len(fleet.devices):
            fleet.structure = shared
            _give_to_absent(fleet, shared, {plan.assignment.device for plan in plans})
        else:
            fleet.structure = max((plan.assignment.structure for plan in plans), key=lambda each: int(each.keep.sum()))
        return
    if private:
        fleet.know_scores(shares_kept([device.structure for device in fleet.devices]))
    else:
        for report in reports:
            fleet.devices[report.device].structure = report.structure
    dense, target = fleet.blueprint.dense(), pruning.target_sparsity
    fleet.structure = select(dense, fleet.scores, _global_sparsity(fleet, ended), pruning.scope, target)


def _give_to_absent(fleet: Fleet, shared: Structure, asked: Collection[int]) -> None:
    """Devices that were not ``asked`` have the shared structure, unless theirs is a part of it for want of memory."""
    for device, state in enumerate(fleet.devices):
        if device not in asked and shared.within(state.structure):
            state.structure = shared


def _global_sparsity(fleet: Fleet, ended: Sequence[Plan]) -> float:
    """The sparsity that the global model is cut to after a round in which the work of these plans has ended."""
    if len(ended) == len(fleet.devices):
        return fleet.sparsity
    own = [fleet.devices[plan.assignment.device].structure.sparsity for plan in ended]
    return max(fleet.structure.sparsity, float(np.mean(own)))


def settle_ranks(fleet: Fleet, plans: Sequence[Plan], reports: Sequence[Report]) -> None:
    """Lower the rank of devices that gave up ranks; a device whose update was not accepted is sent its old rank."""
    assigned = {plan.assignment.device: plan.assignment.rank for plan in plans}
    for report in reports:
        if report.rank < assigned[report.device]:
            fleet.devices[report.device].rank = report.rank


def settle_memories(fleet: Fleet, rounding_error: Adapter | None, reports: Sequence[Report]) -> None:
    """Keep the rounding errors of the sent adapter and of the accepted updates, to be added to what is sent next."""
    fleet.memory = rounding_error
    for report in reports:
        if report.memory is not None:
            fleet.devices[report.device].memory = Memory(report.structure, report.rank, report.memory)


def settle_clock(fleet: Fleet, number: int, seconds: float, waited_seconds: float = 0.0) -> None:
    """Set the fleet's round to ``number``, and move its virtual clock on by its ``seconds``.

    ``waited_seconds``: before the round, in which no device was available.
    """
    fleet.virtual_clock += waited_seconds + seconds
    fleet.round = number
