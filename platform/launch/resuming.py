"""Whether a run may go on with what its job names now, and the record of changes that were accepted."""

import json
from typing import TYPE_CHECKING, Any

from slimfed.clients.data.text import load_data
from slimfed.clients.errors import InputError
from slimfed.platform.home import RunFolder
from slimfed.platform.inputs import (
    changes_of,
    check_acceptable,
    check_unchanged,
    pin_inputs,
    pinned_inputs,
    read_inputs,
)
from slimfed.platform.job.job import Job
from slimfed.platform.launch.quick_check import quick_problems
from slimfed.platform.store.writer import Store
from slimfed.strategies.protocols import Event

if TYPE_CHECKING:
    from slimfed.platform.launch.preflight import Checked  # imports torch


def resumable(folder: RunFolder, checked: "Checked", accept_changes: bool = False) -> list[str]:
    """A line for each thing that is not as the run in ``folder`` began with it.

    Raises ``InputError`` with these lines unless ``accept_changes``, and always for another number of labels and for
    other weights, which the adapter that was trained so far does not belong to.
    """
    if checked.inputs is None:
        return []
    if not accept_changes:
        check_unchanged(folder, checked.job, checked.inputs)
    check_acceptable(folder, checked.job, checked.inputs)
    changes = changes_of(folder, checked.job, checked.inputs)
    if any(".safetensors" in line for line in changes):
        _check_weights(folder, checked)
    return changes


def quick_resumable(folder: RunFolder, job: Job) -> None:
    """Raise ``InputError`` for what a run in the queue could not go on with, as far as it is told without the model."""
    problems = quick_problems(job)
    if problems:
        raise InputError("\n".join(problems))
    if pinned_inputs(folder) is not None:
        check_unchanged(folder, job, read_inputs(job, load_data(job.data, job.model.task)))


def _check_weights(folder: RunFolder, checked: "Checked") -> None:
    """Raise ``InputError`` if the weights themselves are others, and not only their files."""
    from slimfed.clients.export.source import digest  # imports torch
    from slimfed.clients.models.loading import load_model

    labels = checked.inputs.labels if checked.inputs else None
    found = digest(load_model(checked.job.model, labels, checked.job.seed))
    if folder.base.exists() and json.loads(folder.base.read_bytes()).get("sha256") != found:
        raise InputError(
            f"model.path = {checked.job.model.path!r}: its weights are not those that run {folder.path.name} began "
            "with, so this change cannot be accepted; put the old ones back, or start a new run"
        )


def accept(store: Store, run: Any, folder: RunFolder, checked: "Checked", changes: list[str]) -> None:
    """Record ``changes`` as an event of the run (a row of the store); what there is now is pinned from here on."""
    if not changes or checked.inputs is None:
        return
    remedy = f"none: accepted by --accept-changes; rounds after {run.rounds_done} are of what there is now"
    store.add_event(run.id, Event(run.rounds_done, "inputs-changed", "; ".join(changes), remedy))
    pin_inputs(folder, checked.inputs)
