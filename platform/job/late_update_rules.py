"""Rules on jobs whose rounds do not wait for all devices (``server.mode``): what late updates do not go with."""

from slimfed.clients.adapters import ADAPTERS
from slimfed.platform.job.names import either
from slimfed.platform.job.sections import JobSections
from slimfed.strategies.aggregation import AGGREGATIONS


def late_updates_are_simulated(job: JobSections) -> str | None:
    """Only the virtual clock says when an update arrives before the server has it."""
    if job.server.waits_for_all or job.fleet.clock != "measured":
        return None
    return (
        f"{_mode(job)}: rounds of real devices (fleet.clock = 'measured') wait for all that they asked; set "
        "server.mode = 'sync', and deadlines.straggler_seconds to go on without the slowest"
    )


def late_changes_add_up(job: JobSections) -> str | None:
    """A late update is a change of an older adapter, which must mean the same in the present one."""
    name, aggregation = job.method.aggregation, AGGREGATIONS[job.method.aggregation]
    if job.server.waits_for_all or (aggregation.gives_direction and not aggregation.bounds_influence):
        return None
    able = either(AGGREGATIONS, lambda each: each.gives_direction and not each.bounds_influence)
    cause = (
        "leaves out what a minority of the fleet sends, and the first to arrive are no fair part of the fleet"
        if aggregation.bounds_influence
        else "writes factors anew in every round, or merges them into the base, so that a change of older factors has "
        "no place in them"
    )
    return f"{_mode(job)}: method.aggregation = {name!r} {cause}; aggregate by {able}, or set server.mode = 'sync'"


def late_structures_differ(job: JobSections) -> str | None:
    """A late update has the structure of an older round."""
    name = job.method.aggregation
    if job.server.waits_for_all or job.method.target_sparsity == 0 or not AGGREGATIONS[name].needs_equal_structures:
        return None
    return (
        f"{_mode(job)}: method.aggregation = {name!r} needs equal structures, and a late update has that of an older "
        "round; set method.target_sparsity = 0, or aggregate by 'coverage', or set server.mode = 'sync'"
    )


def late_updates_move_no_decisions(job: JobSections) -> str | None:
    """A late change would reopen decisions that an adapter has made by the size of single values since."""
    name = job.method.adapter
    if job.server.waits_for_all or ADAPTERS[name].supports_server_optimizer:
        return None
    able = either(ADAPTERS, lambda each: each.supports_server_optimizer)
    return (
        f"{_mode(job)}: a late update would reopen the gates, masks and entries that method.adapter = {name!r} has "
        f"decided since; use {able}, or set server.mode = 'sync'"
    )


def late_updates_are_not_private(job: JobSections) -> str | None:
    """The privacy accounts know of no updates that count in a later round."""
    kind = job.privacy.kind
    if job.server.waits_for_all or kind == "none":
        return None
    return (
        f"{_mode(job)}: privacy.kind = {kind!r}: when an update arrives tells how long a device's text is, and the "
        "noise is that of a round whose updates count in full; set server.mode = 'sync'"
    )


def one_deadline(job: JobSections) -> str | None:
    """A device either loses the round at a deadline, or its update counts later."""
    seconds = job.deadlines.straggler_seconds
    if job.server.waits_for_all or seconds is None:
        return None
    return (
        f"deadlines.straggler_seconds = {seconds:g}: devices that take longer lose the round, and with {_mode(job)} "
        "their updates count later; leave it out, and use server.close_seconds or server.max_staleness"
    )


def buffer_can_fill(job: JobSections) -> str | None:
    """A round cannot close with more updates than devices are at work."""
    buffer, most = job.server.buffer, job.fleet.participants
    if job.server.mode != "buffered" or buffer <= most:
        return None
    return f"server.buffer = {buffer}: at most {most} devices are at work (fleet.participation); give at most so many"


LATE_UPDATE_RULES = (
    late_updates_are_simulated,
    late_changes_add_up,
    late_structures_differ,
    late_updates_move_no_decisions,
    late_updates_are_not_private,
    one_deadline,
    buffer_can_fill,
)


def _mode(job: JobSections) -> str:
    return f"server.mode = {job.server.mode!r}"
