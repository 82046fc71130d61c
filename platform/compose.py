"""The sum of the weight changes of two runs on the same base, as in LT-SFT (arXiv 2110.07560)."""

from dataclasses import dataclass, replace
from pathlib import Path

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.adapters.training.merging import fold
from slimfed.clients.errors import InputError
from slimfed.clients.export.files.safetensors import save_slim
from slimfed.clients.export.formats.safetensors import LOAD_SLIM
from slimfed.clients.export.model_card import card
from slimfed.clients.export.slim_model import SlimModel
from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.platform.export import GLOBAL, Exporter


@dataclass(frozen=True)
class Composed:
    """The written folder and its contents."""

    folder: Path
    runs: tuple[str, str]
    sparsity: float
    bytes: int


def compose(first: Exporter, second: Exporter, folder: Path) -> Composed:
    """Write the base plus the weight changes of ``first`` and ``second`` to a folder for ``load_slim``.

    Task, head and structure are those of ``first``; of ``second`` the changes of the weights that are left there are
    added, without its head. Raises ``InputError`` if the runs did not tune the same base, or one has cut its width.
    """
    _check(first, second)
    source = first.source(GLOBAL)
    dense = source.structure.blueprint.dense()
    added = ADAPTERS[second.job.method.adapter].finished(replace(second.fleet.adapter, head={}))
    model = fold(source.model(), narrow(added, dense, source.structure), second.job.scaling).eval()
    provenance = source.manifest.provenance.model_copy(
        update={
            "run": f"{first.run.id} + {second.run.id}",
            "name": f"{first.run.name} + {second.run.name}",
            "method": f"{first.run.method} + {second.run.method}",
            "subject": "composed",
        }
    )
    manifest = source.manifest.model_copy(update={"provenance": provenance})
    written = save_slim(SlimModel(model, source.base.tokenizer, manifest), folder, card(manifest, {}, LOAD_SLIM))
    size = sum(entry.bytes for entry in written.files.values())
    return Composed(folder, (first.run.id, second.run.id), provenance.sparsity, size)


def _check(first: Exporter, second: Exporter) -> None:
    if first.digest != second.digest:
        raise InputError(
            f"run {second.run.id} tuned {second.job.model.path!r}, whose weights are not those of "
            f"{first.job.model.path!r}, the base of run {first.run.id}: only changes of one base can be added"
        )
    for exporter in (first, second):
        adapter = exporter.job.method.adapter
        if ADAPTERS[adapter].cuts_width:
            raise InputError(
                f'run {exporter.run.id} has method.adapter = "{adapter}", which moves every weight to cut the width: '
                "its changes cannot be added to others; compose runs with an adapter that keeps the width"
            )
