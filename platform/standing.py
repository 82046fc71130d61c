"""How a run stands: its figure beside the untuned model, the most frequent class, and runs of reference."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from slimfed.platform.format import percent, points_between

REFERENCE_WORDS: Mapping[str, str] = {
    "base": "the untuned model",
    "start": "the model that it began with",
    "majority": "the most frequent class",
    "local": "devices alone, unpruned",
    "central": "central training, unpruned",
}
"""What a reference is called, on screen and in docs."""


@dataclass(frozen=True)
class Standing:
    """``accuracy``: of the run, in [0, 1]. ``references``: accuracy by name (keys of :data:`REFERENCE_WORDS`) where it
    is known. ``runs``: the runs of reference by name.
    """

    accuracy: float | None
    references: Mapping[str, float]
    runs: Mapping[str, str]

    def __str__(self) -> str:
        """Such as ``82.6%: 31.0 over the untuned model; 7.5 below central training, unpruned``; in points."""
        return f"{percent(self.accuracy)}: {self.beside}" if self.beside else percent(self.accuracy)

    @property
    def beside(self) -> str:
        """The same without the accuracy; empty if there is nothing to hold it against."""
        known = self.accuracy
        if known is None:
            return ""
        each = self.references.items()
        return "; ".join(f"{points_between(known, value)} {REFERENCE_WORDS[name]}" for name, value in each)


def standing(run: Any, references: Iterable[Any] = ()) -> Standing:
    """``run``: a row of ``runs``; ``references``: rows of the runs of reference that were made of it.

    A run that began with the model of another (``model.path = "run:ID"``) is held against that one. Of devices alone
    the mean accuracy of their own models counts, of central training that of its model. A reference counts once its run
    is done. Several of one kind: the newest.
    """
    first = "base" if run.job["model"].get("parent") is None else "start"
    known = {first: run.base_accuracy, "majority": run.majority}
    runs: dict[str, str] = {}
    for row in references:
        if row.reference in REFERENCE_WORDS and row.reference not in runs:
            runs[row.reference] = row.id
            figure = row.device_accuracy_mean if row.reference == "local" else row.accuracy
            known[row.reference] = figure if row.status == "done" else None
    return Standing(run.accuracy, {name: value for name, value in known.items() if value is not None}, runs)
