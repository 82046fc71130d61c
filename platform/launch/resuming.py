"""Whether a run may go on with what its job names now, and the record of changes that were accepted."""

from typing import TYPE_CHECKING, Any

from slimfed.platform.home import RunFolder
from slimfed.platform.inputs import changes_of, check_acceptable, check_unchanged, pin_inputs
from slimfed.platform.store.writer import Store
from slimfed.strategies.protocols import Event

if TYPE_CHECKING:
    from slimfed.platform.launch.preflight import Checked  # imports torch


def resumable(folder: RunFolder, checked: "Checked", accept_changes: bool = False) -> list[str]:
    """A line for each thing that is not as the run in ``folder`` began with it.

    Raises ``InputError`` with these lines unless ``accept_changes``, and always for another number of labels.
    """
    if checked.inputs is None:
        return []
    if not accept_changes:
        check_unchanged(folder, checked.job, checked.inputs)
    check_acceptable(folder, checked.job, checked.inputs)
    return changes_of(folder, checked.job, checked.inputs)


def accept(store: Store, run: Any, folder: RunFolder, checked: "Checked", changes: list[str]) -> None:
    """Record ``changes`` as an event of the run (a row of the store); what there is now is pinned from here on."""
    if not changes or checked.inputs is None:
        return
    remedy = f"none: accepted by --accept-changes; rounds after {run.rounds_done} are of what there is now"
    store.add_event(run.id, Event(run.rounds_done, "inputs-changed", "; ".join(changes), remedy))
    pin_inputs(folder, checked.inputs)
