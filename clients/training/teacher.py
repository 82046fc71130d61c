"""The model whose states and predictions a device is held to: the base, or what another run has reached."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from slimfed.clients.errors import InputError
from slimfed.clients.models.cost import Dimensions
from slimfed.clients.models.dimensions import measure
from slimfed.clients.models.discovery import discover
from slimfed.clients.models.loading import LoadedModel, load_model
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.clients.spec import ModelSpec, TrainingSpec
from slimfed.clients.structure import Blueprint

BASE = "base"


@dataclass(frozen=True)
class Teacher:
    """A model in evaluation mode, which is never trained, and its size."""

    model: PreTrainedModel
    size: Dimensions


def open_teacher(
    training: TrainingSpec, model: ModelSpec, labels: Sequence[str] | None, base: LoadedModel, blueprint: Blueprint
) -> Teacher | None:
    """The teacher of a run on ``base``; None if nothing compares with one.

    Raises ``InputError`` if its states or its labels are not those of the run.
    """
    if not training.taught:
        return None
    if training.teacher == BASE:
        return Teacher(base.model, measure(base.model, blueprint, blueprint.dense()))
    spec = model.model_copy(update={"path": training.teacher, "base": None, "revision": None, "quantization": "none"})
    try:
        found = load_model(spec, labels, seed=0)
    except InputError as error:
        raise InputError(f"training.teacher = {training.teacher!r} cannot be opened as {model.task}: {error}") from None
    own = discover(found.model)
    where = found.origin or training.teacher
    if [(b.name, b.units) for b in own.blocks] != [(b.name, b.units) for b in blueprint.blocks]:
        raise InputError(f"training.teacher: {where} has other layers than model.path; use a run on the same base")
    if found.start is not None and found.start.labels != (tuple(labels) if labels else None):
        raise InputError(f"training.teacher: {where} was tuned for other labels; use a run on the same text")
    structure = own.dense() if found.start is None else found.start.structure(own)
    return Teacher(slice_model(found.model, structure).eval(), measure(found.model, own, structure))
