"""The result of a run: figures, rounds, and pruned models."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimfed.clients.errors import InputError
from slimfed.platform.format import NOTHING, percent, sampled, seconds, size
from slimfed.platform.home import home as default_home
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store
from slimfed.platform.summary import counts, measures, run_summaries

if TYPE_CHECKING:
    import pandas as pd

    from slimfed.clients.export.slim_model import SlimModel
    from slimfed.platform.export import Exporter
    from slimfed.platform.job.job import Job

_SHOWN = ("accuracy", "device_accuracy_mean", "sparsity", "virtual_seconds", "wall_seconds", "bytes_up", "bytes_down")


@dataclass(frozen=True)
class RunResult:
    """A snapshot of one run. :meth:`refresh` reads it again.

    ``figures``: the values of ``slimfed run --json``: status, rounds done, accuracies and sparsity in [0, 1], times in
    seconds, sizes in bytes. ``home`` and ``store``: the folder of the runs, and the address of the store.
    """

    id: str
    name: str
    status: str
    cause: str | None
    figures: Mapping[str, Any]
    folder: Path
    home: Path
    store: str

    @staticmethod
    def read(run: str, home: Path, store: str) -> "RunResult":
        """The run with this id, its beginning, or "last". Raises ``InputError`` if there is none."""
        with Store.open(store, home) as opened:
            reader = Reader(opened.engine)
            row = reader.find_run(run)
            figures = run_summaries([row], reader, opened.address)[0]
        return RunResult(row.id, row.name, row.status, row.cause, figures, Path(row.folder), home, store)

    def refresh(self) -> "RunResult":
        """The same run as it is now."""
        return RunResult.read(self.id, self.home, self.store)

    @property
    def accuracy(self) -> float | None:
        """Of the pruned global model on the test split, in [0, 1]; None before an evaluation.

        Before the last round it may be that of a sample (``evaluation.examples``): see ``figures["examples"]``.
        """
        accuracy: float | None = self.figures["accuracy"]
        return accuracy

    @property
    def sparsity(self) -> float | None:
        """Mean share of the prunable parameters that devices have removed, in [0, 1]."""
        sparsity: float | None = self.figures["sparsity"]
        return sparsity

    @property
    def job(self) -> "Job":
        """The job with all defaults filled in."""
        from slimfed.platform.home import RunFolder
        from slimfed.platform.job.job import load_job

        return load_job(RunFolder(self.folder).job)

    @property
    def rounds(self) -> "pd.DataFrame":
        """The recorded rounds, a row each, indexed by the round; with the measures of the global model where taken."""

        def rows(reader: Reader) -> list[dict[str, Any]]:
            row = reader.find_run(self.id)
            found = {each.round: each for each in reader.evaluations(self.id)}
            return [
                each._asdict()
                | {"accuracy": getattr(found.get(each.round), "accuracy", None)}
                | measures(row.task, found.get(each.round))
                | counts(found.get(each.round))
                for each in reader.rounds(self.id)
            ]

        return _frame(self._asked(rows), "round")

    def devices(self, round: int | None = None) -> "pd.DataFrame":
        """A row for each device in ``round`` (None: in all): status, rank, sparsity, reward, losses, times, bytes.

        ``local_steps``: optimiser steps that it was given in the round; missing in rounds of slimfed 0.1.
        """

        def rows(reader: Reader) -> list[dict[str, Any]]:
            numbers = [row.round for row in reader.rounds(self.id)] if round is None else [round]
            return [row._asdict() for number in numbers for row in reader.device_rows(self.id, number)]

        return _frame(self._asked(rows), None)

    @property
    def events(self) -> "pd.DataFrame":
        """The events with cause and remedy, oldest first."""
        return _frame(self._asked(lambda reader: [row._asdict() for row in reader.events(self.id, limit=None)]), None)

    def export(
        self,
        out: str | Path | None = None,
        format: str = "safetensors",
        device: int | None = None,
        *,
        dtype: str | None = None,
        quantization: str | None = None,
        trim_vocabulary: bool = False,
        vocabulary_text: str | Path | None = None,
        min_tokens: int = 0,
    ) -> Path:
        """Write the pruned model to a folder, and return the folder.

        ``device``: the model in this device's structure; None: the global model. ``out``: the folder, which must not
        exist; None: one in the run's own. ``dtype``: "fp32", "bf16" or "fp16", ``quantization`` (GGUF): "f32", "f16",
        "bf16", "q8_0", "q4_0" or "q4_k_m"; None: the precision of the base's files. ``trim_vocabulary``: keep only the
        tokens that the run's held-out text needs, or that of the file ``vocabulary_text``, and ``min_tokens`` at least.
        Raises ``InputError`` for a run without a checkpoint, an unknown format, type or device, a tokenizer that cannot
        be trimmed, or a format that cannot hold this model.
        """
        from slimfed.clients.export.formats.registry import FORMATS
        from slimfed.platform.vocabulary import SmallVocabulary

        if format not in FORMATS:
            raise InputError(f"format = {format!r}: must be one of {', '.join(FORMATS)}")
        if out is not None and Path(out).exists():
            raise InputError(f"out = {str(out)!r}: exists already; name another folder, or remove it")
        place = None if out is None else Path(out)
        if (vocabulary_text is not None or min_tokens) and not trim_vocabulary:
            raise InputError("vocabulary_text, min_tokens: need trim_vocabulary = True")
        file = None if vocabulary_text is None else Path(vocabulary_text)
        small = SmallVocabulary(file, min_tokens) if trim_vocabulary else None
        return self._exporter().export(device, format, place, dtype, quantization, small).folder

    def model(self, device: int | None = None) -> "SlimModel":
        """The pruned model in memory, with its tokenizer; ``device`` as in :meth:`export`."""
        return self._exporter().source(device).slim()

    def _exporter(self) -> "Exporter":
        from slimfed.platform.export import Exporter, card_figures

        row = self._asked(lambda reader: reader.find_run(self.id))
        return Exporter(row, card_figures(row))

    def _asked(self, question: Any) -> Any:
        with Store.open(self.store, self.home) as opened:
            return question(Reader(opened.engine))

    def _repr_html_(self) -> str:
        """A small table, for notebooks."""
        cells = "".join(f"<tr><td>{escape(name)}</td><td>{escape(text)}</td></tr>" for name, text in self._lines())
        return f"<table>{cells}</table>"

    def __str__(self) -> str:
        return "\n".join(f"{name:<21} {text}" for name, text in self._lines())

    def _lines(self) -> list[tuple[str, str]]:
        figures = self.figures
        status = self.status if self.cause is None else f"{self.status}: {self.cause}"
        return [("run", f"{self.id} ({self.name})"), ("status", status), ("rounds", str(figures["rounds"]))] + [
            (name.replace("_", " "), self._written(name)) for name in _SHOWN
        ]

    def _written(self, name: str) -> str:
        text = _written(name, self.figures[name])
        note = sampled(self.figures["examples"], self.figures["test_examples"]) if name == "accuracy" else ""
        return f"{text} {note}".rstrip()


def place(home: str | Path | None) -> Path:
    """The folder of the runs: ``home``, else the one that the command line uses."""
    return default_home() if home is None else Path(home).expanduser().absolute()


def _written(name: str, value: float | None) -> str:
    if value is None:
        return NOTHING
    writer = seconds if name.endswith("seconds") else size if name.startswith("bytes") else percent
    return writer(value)


def _frame(rows: list[dict[str, Any]], index: str | None) -> "pd.DataFrame":
    import pandas as pd  # imported here, as figures do not need it

    frame = pd.DataFrame(rows).drop(columns="run_id", errors="ignore")
    return frame.set_index(index) if index is not None and index in frame else frame
