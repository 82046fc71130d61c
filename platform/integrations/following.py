"""A run's figures from the store to one tracker: what is new at each step, or all at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slimfed.clients.plain_text import clean
from slimfed.platform.integrations.samples import samples_by_round
from slimfed.platform.store.reader import Reader
from slimfed.platform.trackers import Destination, TrackedRun, Tracker
from slimfed.platform.trackers.base import parameters

FOLDER = "tracking"
"""Name of the folder beside the runs for what trackers write to this computer."""


class Following:
    """One tracker that follows one run. A round is told once, also if it is repeated after a resume."""

    def __init__(self, tracker: Tracker, reader: Reader, run_id: str, where: Destination) -> None:
        """Open the run in the tool, or continue it. Raises whatever the tool raises."""
        self._tracker = tracker
        self._reader = reader
        self._run_id = run_id
        run = reader.find_run(run_id)
        self._told = tracker.begin(TrackedRun(run.id, clean(run.name), parameters(run.job)), where)

    @property
    def place(self) -> str:
        """Where the run is to be found now."""
        return self._tracker.place

    def catch_up(self) -> int:
        """Tell the rounds that the tool does not have; the number of values."""
        count = 0
        for round, samples in samples_by_round(self._reader, self._run_id, self._told):
            self._tracker.tell(round, samples)
            self._told = round
            count += len(samples)
        return count

    def end(self) -> None:
        """Close the run in the tool with its status in the store."""
        self._tracker.end(self._reader.find_run(self._run_id).status)


def publish_run(tracker: Tracker, reader: Reader, run: Any, where: Destination) -> tuple[int, str]:
    """Bring a whole run (a row of the store) to a tool: the number of new values, and where they are."""
    following = Following(tracker, reader, run.id, where)
    count = following.catch_up()
    place = following.place
    following.end()
    return count, place


def destination(name: str, run: Any, environment: Mapping[str, str]) -> Destination:
    """Where a run (a row of the store) is tracked by the tracker ``name``: by its job, beside the runs by default."""
    wanted = run.job.get("tracking", {})
    folder = Path(wanted.get("folder") or Path(run.folder).parent / FOLDER)
    return Destination(folder / name, wanted.get("project") or "slimfed", environment)
