"""Starting a run from another, or learning from it: ``run:ID`` is the global model that run ID has reached.

Its weight changes are folded into the base, in the coordinates of the base, and what it removed stays removed.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from slimfed.clients.errors import InputError
from slimfed.clients.models.location import RUN
from slimfed.platform.home import RunFolder, store_url
from slimfed.platform.job.job import Job
from slimfed.platform.store.reader import Reader
from slimfed.platform.stores import reading
from slimfed.platform.sweep import Variant

if TYPE_CHECKING:
    from slimfed.platform.export import Exporter


def with_parent(job: Job, place: Path) -> Job:
    """``job`` with the folders of the finished models that ``run:ID`` means in ``model.path`` and ``training.teacher``.

    ``place``: the folder of the runs. The model is written into the folder of its run, once for each round that it is
    asked of. Raises ``InputError`` if there is no such run, or it has no checkpoint.
    """
    if job.model.path.startswith(RUN):
        for field in ("revision", "base"):
            if getattr(job.model, field) is not None:
                raise InputError(f'model.{field}: model.path = "{job.model.path}" has none; leave it out')
        run_id, folder = finished_model(job, job.model.path.removeprefix(RUN), place, "model.path")
        job = job.model_copy(update={"model": job.model.model_copy(update={"path": str(folder), "parent": run_id})})
    if job.training.teacher.startswith(RUN):
        _, folder = finished_model(job, job.training.teacher.removeprefix(RUN), place, "training.teacher")
        job = job.model_copy(update={"training": job.training.model_copy(update={"teacher": str(folder)})})
    return job


def with_parents(variants: Sequence[Variant], place: Path) -> list[Variant]:
    """:func:`with_parent` for the jobs of a sweep."""
    return [replace(variant, job=with_parent(variant.job, place)) for variant in variants]


def finished_model(job: Job, wanted: str, place: Path, field: str) -> tuple[str, Path]:
    """The run that ``wanted`` names in the store of ``job``, and the folder with its global model."""
    from slimfed.platform.export import Exporter  # brings torch

    with reading(job, place) as store:
        if store is None:
            raise InputError(f'{field} = "{RUN}{wanted}": there are no runs yet in {store_url(job)} of {str(place)!r}')
        try:
            run = Reader(store.engine).find_run(wanted)
            exporter = Exporter(run, {})
        except InputError as error:
            raise InputError(f'{field} = "{RUN}{wanted}": {error}') from None
    folder = RunFolder(Path(run.folder)).finished(exporter.fleet.round)
    if not folder.exists():
        _write(exporter, run.id, folder, field)
    return str(run.id), folder


def _write(exporter: "Exporter", run_id: str, folder: Path, field: str) -> None:
    """Write the whole model with the run's changes in its weights, and the file with what was removed."""
    from slimfed.clients.adapters import ADAPTERS
    from slimfed.clients.export.atomic_folder import whole_folder
    from slimfed.clients.models.loading import quiet
    from slimfed.clients.models.location import weights_bytes
    from slimfed.clients.models.start import Start, kept_units, write_start

    method = ADAPTERS[exporter.job.method.adapter]
    if method.cuts_width:
        raise InputError(
            f'{field} = "{RUN}{run_id}": its method.adapter = "{exporter.job.method.adapter}" cuts the width of the '
            "model, which has no place in the base; start from a run with an adapter that keeps the width"
        )
    fleet, base = exporter.fleet, exporter.base
    adapter = method.finished(fleet.adapter)
    spec = exporter.job.task_spec().adapter
    model = method.training.build(base.model, fleet.blueprint.dense(), adapter, spec)
    start = Start(
        run=run_id,
        round=fleet.round,
        labels=base.labels,
        precision=base.precision,
        base_bytes=weights_bytes(exporter.job.model),
        kept=kept_units(fleet.structure),
    )
    with quiet(), whole_folder(folder) as aside:
        model.save_pretrained(aside)
        base.tokenizer.save_pretrained(aside)
        write_start(aside, start)
