"""Time of a run's rounds by phase, and the speed of training steps: recorded by round, summarised at the end."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from slimfed.strategies.protocols import RoundRecord

_COMPUTING = ("steps", "importance")


@dataclass(frozen=True)
class RoundProfile:
    """Medians over the rounds after the first, which includes set-up (or of the first, if it is the only one).

    ``server`` and ``nodes``: seconds by phase, those of the nodes summed over all nodes. ``flops``: operations of the
    training steps, counted over each device's own shapes; ``rate``: FLOP/s that a node reached in its steps.
    """

    rounds: int
    wall_seconds: float
    server: dict[str, float]
    nodes: dict[str, float]
    flops: float
    rate: float

    def as_dict(self, peak: float) -> dict[str, Any]:
        """For JSON; ``peak`` is the measured FLOP/s of one worker's processor."""
        return {**vars(self), "peak_rate": peak, "share_of_peak": self.rate / peak}


def keep(path: Path, record: RoundRecord, recording: Mapping[str, float]) -> None:
    """Add a line about a recorded round to ``path``. ``recording``: seconds of recording it, by phase."""
    updates = [each.report for each in record.devices if each.report is not None]
    line = {
        "round": record.round,
        "wall_seconds": record.wall_seconds + sum(recording.values()),
        "server": {**record.phases.get("server", {}), **recording},
        "nodes": dict(record.phases.get("nodes", {})),
        "flops": sum(update.workload.flops for update in updates),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def read(path: Path) -> RoundProfile | None:
    """The profile of a run; None if no round has been recorded."""
    if not path.exists():
        return None
    rounds = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    chosen = [each for each in rounds if each["round"] > 1] or rounds
    rates = []
    for each in chosen:
        seconds = sum(each["nodes"].get(phase, 0.0) for phase in _COMPUTING)
        rates += [each["flops"] / seconds] if seconds > 0 else []
    return RoundProfile(
        rounds=len(chosen),
        wall_seconds=median(each["wall_seconds"] for each in chosen),
        server=_medians([each["server"] for each in chosen]),
        nodes=_medians([each["nodes"] for each in chosen]),
        flops=median(each["flops"] for each in chosen),
        rate=median(rates) if rates else 0.0,
    )


def _medians(parts: list[dict[str, float]]) -> dict[str, float]:
    """By phase, in the order in which they first came."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: median(part.get(name, 0.0) for part in parts) for name in names}
