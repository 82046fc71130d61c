"""What a real node tells of its machine, so that a job can ask some nodes and not others (``fleet.where``)."""

from collections.abc import Sequence

from slimfed.clients.messages.machine import Machine


def this_machine(tags: Sequence[str] = ()) -> Machine:
    """The machine that this process runs on, with its owner's ``tags``."""
    import psutil

    from slimfed.clients.processors import processor_count

    return Machine(psutil.virtual_memory().total / 2**30, processor_count(), tuple(tags))
