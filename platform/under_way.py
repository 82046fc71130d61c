"""What an unfinished run is doing, in words and numbers: one source for pages, command line and JSON."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from slimfed.platform.format import plural, roughly, seconds

STATES = ("queued", "preparing", "running", "stopping", "done", "failed", "stopped")
"""The states of a run as they are shown. ``runs.status`` of the store has neither "preparing" nor "stopping"."""

_FINAL = ("done", "failed", "stopped")
_PHASES = {
    "waiting": "waiting for nodes",
    "planning": "planning",
    "training": "training",
    "measuring": "evaluating the devices' models",
    "aggregating": "aggregating",
    "evaluating": "evaluating the global model",
    "generating": "writing texts for prompts",
    "recording": "saving",
}
_UNITS = {"measuring": "test texts", "evaluating": "test texts", "generating": "prompts"}


@dataclass(frozen=True)
class UnderWay:
    """A run at one moment.

    ``state``: one of :data:`STATES`. ``round``: the one under way, 0 before the first. ``doing``: what the server does
    in it, with counts; empty if unknown. ``share``: part of the whole run that is done, in [0, 1]. ``elapsed``: seconds
    of all rounds, the one under way included. ``left``: seconds until the end; None if nothing was measured yet.
    """

    state: str
    round: int
    rounds: int
    doing: str
    share: float
    elapsed: float
    left: float | None

    def describe(self) -> str:
        """``round 2 of 20 · training, 34 of 80 devices · 2 min 10 s so far · about 12 min left``."""
        parts = [f"round {self.round} of {self.rounds}" if self.round else "", *self.details()]
        return " · ".join(part for part in parts if part)

    def details(self) -> list[str]:
        """The same without the round, in parts."""
        so_far = "" if self.state in _FINAL else " so far"
        elapsed = f"{seconds(self.elapsed)}{so_far}" if self.elapsed else ""
        left = "" if self.left is None else f"about {roughly(self.left)} left"
        return [part for part in (self.doing, elapsed, left) if part]


def state_of(run: Any, progress: Any = None) -> str:
    """The state of a run (a row of ``runs``) whose ``progress`` is this row, if it has one."""
    if run.status in _FINAL:
        return str(run.status)
    if run.stop_requested:
        return "stopping"
    begins = progress is not None and progress.phase == "preparing"
    return "preparing" if run.status == "created" or (run.status == "running" and begins) else str(run.status)


def under_way(run: Any, progress: Any = None, now: datetime | None = None) -> UnderWay:
    """What a run is doing ``now``, by its rows of ``runs`` and ``progress`` (None: it has none)."""
    state, done = state_of(run, progress), min(run.rounds_done / max(run.rounds, 1), 1.0)
    if progress is None or state in (*_FINAL, "queued"):
        return UnderWay(state, run.rounds_done, run.rounds, "", done, run.wall_seconds, None)
    now = now or datetime.now(UTC)
    since_written = _since(progress.updated_at, now)
    left = None if progress.seconds_left is None else max(progress.seconds_left - since_written, 0.0)
    elapsed = run.wall_seconds + _since(progress.began_at, now)
    current = min(progress.round, run.rounds)
    share = min((run.rounds_done + progress.share) / max(run.rounds, 1), 1.0)
    return UnderWay(state, current, run.rounds, _doing(progress), share, elapsed, left)


def _doing(progress: Any) -> str:
    said = _PHASES.get(progress.phase, "")
    if progress.phase == "training":
        return f"{said}, {progress.devices_done:,} of {plural(progress.devices, 'device')}"
    unit = _UNITS.get(progress.phase)
    return f"{said}, {progress.rows_done:,} of {progress.rows:,} {unit}" if unit and progress.rows else said


def as_json(run: Any, progress: Any = None) -> dict[str, Any] | None:
    """The progress of an unfinished run for JSON; None for one that has none."""
    if progress is None:
        return None
    found = under_way(run, progress)
    counts = {name: getattr(progress, name) for name in ("devices", "devices_done", "rows", "rows_done")}
    return {
        "phase": progress.phase,
        "round": found.round,
        **counts,
        "share": found.share,
        "elapsed_seconds": found.elapsed,
        "seconds_left": found.left,
    }


def _since(moment: datetime, now: datetime) -> float:
    """Seconds since ``moment``, never negative: the clock of another computer may be ahead."""
    there = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max((now - there).total_seconds(), 0.0)
