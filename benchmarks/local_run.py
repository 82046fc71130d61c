"""Run a job in this process, without SuperLink, Ray or store: the quick way to measure on an accelerator.

    python benchmarks/local_run.py JOB.toml [--set training.rounds=5 ...] [--out FILE.json]

The strategy, the messages, the node and the engine are those of `slimfed run`; only the transport is a LocalGrid.
Prints one line a round to standard error and one JSON object at the end.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

import torch

from slimfed.clients.node.runtime import open_runtime
from slimfed.platform.job.job import load_job
from slimfed.platform.launch.preflight import check
from slimfed.platform.server.assembly import assemble, new_fleet
from slimfed.strategies.local_grid import LocalGrid
from slimfed.strategies.protocols import Baseline, Event, RoundRecord


class PrintingRecorder:
    """Keeps the rounds, without the updates that their devices sent, and prints a line for each."""

    def __init__(self) -> None:
        self.rounds: list[RoundRecord] = []
        self.peak_memory_bytes = 0.0
        self.events = 0

    def record(self, record: RoundRecord, tensors: dict[str, Any], state: dict[str, Any]) -> None:
        """Print the round."""
        self.rounds.append(replace(record, devices=()))
        self.events += len(record.events)
        needed = [device.report.workload.peak_memory_bytes for device in record.devices if device.report]
        self.peak_memory_bytes = max([self.peak_memory_bytes, *needed])
        accuracy = record.evaluation.accuracy if record.evaluation else float("nan")
        own = record.device_accuracy_mean or float("nan")
        print(
            f"round {record.round:3d}  accuracy {accuracy:.4f}  own {own:.4f}  sparsity {record.sparsity:.3f}  "
            f"loss {record.train_loss:.4f}  virtual {record.virtual_seconds:.1f} s  wall {record.wall_seconds:.2f} s"
            + "".join(f"\n  {event.kind} {event.device}: {event.cause}" for event in record.events[:3]),
            file=sys.stderr,
            flush=True,
        )

    def begin(self, baseline: Baseline) -> None:
        """Print the accuracy of the untuned model."""
        print(f"round   0  accuracy {baseline.evaluation.accuracy:.4f}", file=sys.stderr, flush=True)

    def event(self, event: Event) -> None:
        """Print the event."""
        print(f"  {event.kind}: {event.cause}", file=sys.stderr, flush=True)

    def spend(self, before: int) -> int:
        """Kept nowhere: such a run is not resumed."""
        return before + 1

    def stop_requested(self) -> bool:
        """Never."""
        return False


def run(job_file: str | None, sets: list[str], nodes: int = 1) -> dict[str, Any]:
    """Run the job and return its summary."""
    job = check(load_job(job_file, sets)).job
    started = time.monotonic()
    runtime = open_runtime(job.task_spec())
    recorder = PrintingRecorder()
    assemble(job, runtime, new_fleet(runtime, job), nodes, recorder).start(LocalGrid(nodes))
    last = recorder.rounds[-1]
    walls = [record.wall_seconds for record in recorder.rounds]
    return {
        "name": job.name,
        "sets": sets,
        "engine": job.engine.name,
        "dtype": job.engine.dtype,
        "cohort_size": job.engine.cohort_size,
        "processor": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "rounds": len(recorder.rounds),
        "accuracy": last.evaluation.accuracy if last.evaluation else None,
        "device_accuracy_mean": last.device_accuracy_mean,
        "evaluation": asdict(last.evaluation) if last.evaluation else None,
        "joules": None if any(r.joules is None for r in recorder.rounds) else sum(r.joules for r in recorder.rounds),
        "sparsity": last.sparsity,
        "virtual_seconds": sum(record.virtual_seconds for record in recorder.rounds),
        "bytes": sum(record.bytes_up + record.bytes_down for record in recorder.rounds),
        "peak_memory_bytes": recorder.peak_memory_bytes,
        "seconds_per_round": median(walls[1:] or walls),
        "round_seconds": walls,
        "wall_seconds": time.monotonic() - started,
        "accuracies": [r.evaluation.accuracy if r.evaluation else None for r in recorder.rounds],
        "sparsities": [r.sparsity for r in recorder.rounds],
        "virtual_seconds_after": list(accumulate(r.virtual_seconds for r in recorder.rounds)),
        "bytes_after": list(accumulate(r.bytes_up + r.bytes_down for r in recorder.rounds)),
        "events": recorder.events,
        "phases": {side: _summed(r.phases.get(side, {}) for r in recorder.rounds[1:]) for side in ("server", "nodes")},
    }


def _summed(rounds: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Seconds by phase, of all rounds together."""
    seconds: Counter[str] = Counter()
    for phases in rounds:
        seconds.update(phases)
    return {phase: round(value, 3) for phase, value in seconds.most_common()}


def main() -> None:
    """Parse the command line and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", nargs="?")
    parser.add_argument("--set", action="append", default=[], dest="sets")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = run(options.job, options.sets, options.nodes)
    print(json.dumps(result))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
