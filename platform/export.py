"""Exporting models of a run: the newest checkpoint and the base, written in a format."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from slimfed.clients.adapters import ADAPTERS
from slimfed.clients.data.chat import use_template
from slimfed.clients.data.text import load_data
from slimfed.clients.errors import InputError
from slimfed.clients.export.formats.registry import FORMATS, WholeModel
from slimfed.clients.export.manifest import Provenance, Vocabulary
from slimfed.clients.export.source import Source
from slimfed.clients.export.weights import chosen_weights
from slimfed.clients.models.discovery import discover
from slimfed.clients.models.loading import load_model
from slimfed.clients.models.location import weights_bytes
from slimfed.platform.format import percent, sampled
from slimfed.platform.home import RunFolder
from slimfed.platform.inputs import check_unchanged, read_inputs
from slimfed.platform.job.job import Job, load_job
from slimfed.platform.server import checkpoint
from slimfed.platform.server.base_digest import check_base
from slimfed.platform.vocabulary import SmallVocabulary, trimming
from slimfed.strategies.schedule import sparsity_after
from slimfed.strategies.server_state import Fleet

GLOBAL = None
"""The subject for the global model, in the structure that the server chose."""

_PACKAGES = ("slimfed", "torch", "transformers", "peft")


@dataclass(frozen=True)
class Exported:
    """One folder that was written. ``base_bytes``: of the base's weights as they came; None if they are no files.

    ``vocabulary``: what is left of the tokens; None: all.
    """

    subject: str
    folder: Path
    sparsity: float
    bytes: int
    weights: str
    base_bytes: int | None
    vocabulary: Vocabulary | None = None


class Exporter:
    """A run's newest state, opened once, from which any number of models can be exported."""

    def __init__(self, run: Any, figures: dict[str, str]) -> None:
        """``run``: a row of the store. Raises ``InputError`` if there is no checkpoint, or base or data are gone."""
        self.run = run
        self.figures = figures
        self.folder = RunFolder(Path(run.folder))
        newest = checkpoint.newest(self.folder.checkpoints)
        if newest is None:
            raise InputError(f"run {run.id} has no checkpoint yet: there is nothing to use before its first round")
        self.job: Job = load_job(self.folder.job)
        text = load_data(self.job.data, self.job.model.task, self.job.seed)
        self.text = text
        self.base = load_model(self.job.model, text.labels, self.job.seed)
        use_template(self.base.tokenizer, self.job.data)
        self.digest = check_base(self.folder, self.job.model, self.base)
        check_unchanged(self.folder, self.job, read_inputs(self.job, text), export=True)
        try:
            self.fleet = Fleet.restore(discover(self.base.model), *checkpoint.load(newest))
        except (KeyError, ValueError) as error:
            raise InputError(
                f"model.path = {self.job.model.path!r} is not the base that run {run.id} tuned: {error}"
            ) from None

    def devices(self) -> Sequence[int]:
        """The devices of the run."""
        return range(len(self.fleet.devices))

    def source(
        self, device: int | None, weights: str = "fp32", small_vocabulary: SmallVocabulary | None = None
    ) -> Source:
        """The source of an export for a device, or for :data:`GLOBAL`.

        The global adapter, narrowed to the structure that the device has kept, at full rank, since a lower rank would
        not make the merged model smaller. The training of a device after the last aggregation is not included, as it is
        in no checkpoint. ``small_vocabulary``: which tokens are to stay; None: all. Raises ``InputError`` if there is
        no such device.
        """
        if device is not None and device not in self.devices():
            raise InputError(f"--device = {device}: run {self.run.id} has devices 0 to {len(self.fleet.devices) - 1}")
        structure = self.fleet.structure if device is None else self.fleet.devices[device].structure
        removed = ADAPTERS[self.job.method.adapter].removed(self.fleet.adapter, self.fleet.blueprint)
        return Source(
            base=self.base,
            spec=self.job.model,
            structure=structure,
            adapter=ADAPTERS[self.job.method.adapter].finished(self.fleet.adapter),
            adapter_spec=self.job.task_spec().adapter,
            data=self.job.data,
            prompted=self.text.test.prompted,
            provenance=Provenance(
                run=self.run.id,
                name=self.run.name,
                method=self.run.method,
                subject="global" if device is None else f"device {device}",
                round=self.fleet.round,
                seed=self.job.seed,
                sparsity=sparsity_after(structure.sparsity, removed),
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                versions={name: version(name) for name in _PACKAGES},
            ),
            figures=self.figures if device is None else _of_fleet(self.figures),
            base_digest=self.digest,
            weights=weights,
            trimming=None if small_vocabulary is None else trimming(small_vocabulary, self.base, self.job, self.text),
        )

    def export(
        self,
        device: int | None,
        format: str,
        out: Path | None,
        dtype: str | None = None,
        quantization: str | None = None,
        small_vocabulary: SmallVocabulary | None = None,
    ) -> Exported:
        """Write one model. ``out``: its folder; default: one in the run's folder, named after its contents.

        ``dtype``, ``quantization``: the type of its weights; default: that of the base.
        ``small_vocabulary``: which tokens are to stay; default: all.
        """
        check_can_be_trimmed(format, small_vocabulary is not None)
        weights = chosen_weights(format, FORMATS[format].weights, self.base.precision, dtype, quantization)
        source = self.source(device, weights, small_vocabulary)
        subject = source.provenance.subject.replace(" ", "-")
        kind = dtype or quantization or ""
        name = "-".join(filter(None, [subject, format, kind, "trimmed" if small_vocabulary else ""]))
        folder = out or self.folder.exports / name
        manifest = FORMATS[format].write(source, folder)
        size = sum(entry.bytes for entry in manifest.files.values())
        vocabulary = manifest.vocabulary
        base_bytes = weights_bytes(self.job.model)
        return Exported(subject, folder, source.provenance.sparsity, size, weights, base_bytes, vocabulary)


def check_can_be_trimmed(format: str, wanted: bool) -> None:
    """Raise ``InputError`` if the vocabulary is ``wanted`` trimmed in a format that holds no whole model."""
    if wanted and not isinstance(FORMATS[format], WholeModel):
        raise InputError(f"--trim-vocabulary: --format {format} holds no embeddings; export another format")


def _of_fleet(figures: dict[str, str]) -> dict[str, str]:
    """Figures of the global model, renamed for a device's card."""
    return {f"run: {name}": value for name, value in figures.items()}


def card_figures(run: Any) -> dict[str, str]:
    """The figures of a run for a model card. ``run``: a row of the store."""
    note = sampled(getattr(run, "examples", None), getattr(run, "test_examples", None))
    judged = (
        {"accuracy of the untuned model there": percent(run.base_accuracy)} if run.base_accuracy is not None else {}
    )
    if run.evaluated_on == "validation":
        judged["accuracy of the global model on the test split"] = percent(run.held_out_accuracy)
    return {
        f"accuracy of the global model on the {run.evaluated_on} split": f"{percent(run.accuracy)} {note}".rstrip(),
        **judged,
        "accuracy of the devices' own models there (mean)": percent(run.device_accuracy_mean),
        "sparsity of the devices' own models (mean)": percent(run.sparsity),
        "rounds": f"{run.rounds_done} of {run.rounds}, {run.devices} devices",
    }
