"""The figures of a finished round, and the callback after every round."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from slimfed.platform.store.reader import Reader
from slimfed.platform.summary import counts


@dataclass(frozen=True)
class RoundFigures:
    """One finished round.

    ``accuracy``: of the pruned global model on the test split, in [0, 1]; ``device_accuracy_mean``: of devices' own
    models; both None in a round without evaluation. ``accuracy`` stands on ``examples`` of the ``test_examples`` in the
    test split: a sample if they differ (``evaluation.examples`` of the job). ``train_loss``: mean over the devices,
    nats. ``sparsity``: mean share of the prunable parameters that devices have removed. Times in seconds, sizes in
    bytes. ``asked``: devices that took part, of ``available`` ones (None: not known). ``waited_seconds``: the part of
    ``virtual_seconds`` in which no device was available. Where rounds do not wait for all devices (else None):
    ``late``, those of the ``accepted`` updates that an earlier round asked for; ``staleness``, the mean over the
    accepted ones of the rounds that they are late; ``in_flight``, updates that had not arrived when the round closed.
    """

    round: int
    accuracy: float | None
    device_accuracy_mean: float | None
    train_loss: float | None
    sparsity: float
    virtual_seconds: float
    wall_seconds: float
    bytes_up: int
    bytes_down: int
    accepted: int
    rejected: int
    examples: int | None = None
    test_examples: int | None = None
    asked: int | None = None
    available: int | None = None
    waited_seconds: float = 0.0
    late: int | None = None
    staleness: float | None = None
    in_flight: int | None = None


OnRound = Callable[[RoundFigures], object]
"""Called in the thread that called ``run``, after every round, in order. Its return value is ignored."""


class RoundReporter:
    """Calls ``on_round`` once for every round of a run after the first ``told`` ones."""

    def __init__(self, reader: Reader, run_id: str, on_round: OnRound | None, told: int = 0) -> None:
        self._reader = reader
        self._run_id = run_id
        self._on_round = on_round
        self._told = told
        self.error: BaseException | None = None
        """What ``on_round`` raised. It is called no more then, and the run is to stop."""

    def report(self, done: int) -> bool:
        """Report the rounds up to ``done``; False once ``on_round`` has raised."""
        if self._on_round is None or done <= self._told or self.error is not None:
            return self.error is None
        for figures in round_figures(self._reader, self._run_id, self._told):
            self._told = figures.round
            try:
                self._on_round(figures)
            except Exception as error:
                self.error = error
                return False
        return True


def round_figures(reader: Reader, run_id: str, after: int = 0) -> list[RoundFigures]:
    """The recorded rounds of a run after round ``after``, in order."""
    evaluations = {row.round: row for row in reader.evaluations(run_id)}
    return [_figures(row, evaluations.get(row.round)) for row in reader.rounds(run_id, after)]


def _figures(row: Any, evaluation: Any) -> RoundFigures:
    return RoundFigures(
        round=row.round,
        accuracy=None if evaluation is None else evaluation.accuracy,
        device_accuracy_mean=row.device_accuracy_mean,
        train_loss=row.train_loss,
        sparsity=row.sparsity,
        virtual_seconds=row.virtual_seconds,
        wall_seconds=row.wall_seconds,
        bytes_up=row.bytes_up,
        bytes_down=row.bytes_down,
        accepted=row.accepted,
        rejected=row.rejected,
        asked=row.asked,
        available=row.available,
        waited_seconds=row.waited_seconds or 0.0,
        late=row.late,
        staleness=row.staleness,
        in_flight=row.in_flight,
        **counts(evaluation),
    )
