"""What a search found: its trials, and the best of them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from slimfed.platform.comparison.course import Quality

if TYPE_CHECKING:
    import pandas as pd

State = Literal["done", "ended early", "failed"]
ENDED_EARLY: Literal["ended early"] = "ended early"
"""The tag of a run that a search stopped because it fell behind; `slimfed resume` takes it to its end."""


@dataclass(frozen=True)
class Trial:
    """A choice and its run. ``state``: how the run ended; ``quality``: after its last evaluated round, in [0, 1].

    ``own``: the job's own values.
    """

    number: int
    chosen: Mapping[str, str]
    run_id: str | None
    state: State
    quality: float | None
    rounds: int
    own: bool


@dataclass(frozen=True)
class SearchResult:
    """A search's trials in the order of their choice, and its exit code.

    ``sweep``: the name of the sweep of its runs. ``validation``: the qualities were measured on a validation file, not
    on the test file.
    """

    sweep: str
    trials: tuple[Trial, ...]
    code: int
    metric: Quality
    validation: bool

    @property
    def frame(self) -> "pd.DataFrame":
        """A row a trial: its values by field, quality, rounds, how it ended, and its run."""
        import pandas as pd  # here: the command line does without

        rows = [
            {"trial": each.number + 1, **each.chosen, self.metric: each.quality}
            | {"rounds": each.rounds, "state": each.state, "run": each.run_id}
            for each in self.trials
        ]
        return pd.DataFrame(rows).set_index("trial")

    @property
    def best(self) -> Trial | None:
        """The finished trial of the highest quality, the earlier one of two; None without any."""
        done = [trial for trial in self.trials if trial.state == "done" and trial.quality is not None]
        return max(done, key=lambda trial: (trial.quality or 0.0, -trial.number), default=None)

    @property
    def own(self) -> Trial | None:
        """The trial of the job's own values, if it is finished."""
        return next((trial for trial in self.trials if trial.own and trial.state == "done"), None)

    def to_dict(self) -> dict[str, Any]:
        """As ``slimfed sweep --search --json`` prints it."""
        return {
            "sweep": self.sweep,
            "metric": self.metric,
            "measured_on": "validation" if self.validation else "test",
            "best": None if self.best is None else asdict(self.best),
            "trials": [asdict(trial) for trial in self.trials],
        }
