"""Rules on jobs whose layers become unequally sparse (``pruning.allocation``), and on what is measured for it."""

from slimfed.clients.allocation import ALLOCATIONS
from slimfed.platform.job.names import either
from slimfed.platform.job.sections import JobSections


def allocation_has_one_structure(job: JobSections) -> str | None:
    """Layer shares are those of one structure for all: devices that cut layers unequally would share few units."""
    name, pruning = job.pruning.allocation, job.pruning
    if ALLOCATIONS[name].by_scope or pruning.structure == "shared":
        return None
    return (
        f"pruning.allocation = {name!r}: decides for one structure of all devices, and they have their own; set "
        f"pruning.structure = 'shared' with schedule = 'cubic' or 'one-shot', or use allocation = {_by_scope()}"
    )


def allocation_or_scope(job: JobSections) -> str | None:
    """Layer shares leave nothing for a scope to decide that lets units of several layers compete, or rounds them."""
    name, scope = job.pruning.allocation, job.pruning.scope
    if ALLOCATIONS[name].by_scope or scope == "layer":
        return None
    return (
        f"pruning.allocation = {name!r}: says how sparse each layer becomes, and so does pruning.scope = {scope!r}; "
        f"use scope = 'layer', or allocation = {_by_scope()}"
    )


def calibration_holds_a_text(job: JobSections) -> str | None:
    """What a device measures on holds a text at least, so that no device measures on more tokens than it should."""
    tokens, longest = job.calibration.tokens, job.data.max_length
    if not ALLOCATIONS[job.pruning.allocation].measures or tokens >= longest:
        return None
    return f"calibration.tokens = {tokens}: must hold a text, of data.max_length = {longest} tokens"


def server_has_text(job: JobSections) -> str | None:
    """A server that measures needs text of its own: in a simulation the training file is the devices'."""
    measures = ALLOCATIONS[job.pruning.allocation].measures and job.calibration.source == "server"
    if not measures or job.fleet.clock == "measured" or job.data.validation == "use":
        return None
    return (
        "calibration.source = 'server': simulated devices have all of the training text, and the server may not look "
        "at the test split; put a validation file into the folder of data.path, or use source = 'devices'"
    )


LAYER_SHARE_RULES = (allocation_has_one_structure, allocation_or_scope, calibration_holds_a_text)
LAYER_SHARE_RUN_RULES = (server_has_text,)
"""Of a job that is to be run, whose files have been looked at."""


def _by_scope() -> str:
    """Allocations that leave the layers to ``pruning.scope``."""
    return either(ALLOCATIONS, lambda each: each.by_scope)
