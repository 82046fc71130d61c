"""How long the commands that only list take from call to end, as whole processes.

    python benchmarks/startup.py [--repeats 7] [--out benchmarks/results/startup.json]

The home holds one recorded run. Each command is run once before it is timed, so that its files are in the page cache.
The last line is what a Python process takes to import the libraries of `runs` and no line of slimfed: the floor on this
machine. Prints a table of medians and ends with 1 if a median is above the aim; run it with nothing else to do.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from slimfed.platform.job.job import job_to_dict, load_job
from slimfed.platform.store.writer import Store

AIM_SECONDS = 0.6
COMMANDS = ("--help", "runs", "show last", "methods", "fleet")
LIBRARIES = "import sqlalchemy.orm, typer, rich.console, rich.table, psutil"


def measure(program: list[str], home: Path, repeats: int) -> list[float]:
    """Wall seconds of ``repeats`` calls."""
    environment = {**os.environ, "SLIMFED_HOME": str(home), "SLIMFED_STORE": ""}
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        subprocess.run(program, env=environment, stdout=subprocess.DEVNULL, check=True)
        seconds.append(time.perf_counter() - began)
    return seconds[1:]


def record_a_run(home: Path) -> None:
    """A run in the store, for the commands that show one."""
    with Store.open("sqlite", home) as store:
        store.create_run("20260101-000000-aaa", job_to_dict(load_job()), home / "20260101-000000-aaa")


def main() -> int:
    """Measure, print and keep; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        record_a_run(Path(folder))
        slimfed = str(Path(sys.executable).with_name("slimfed"))
        found = {name: measure([slimfed, *name.split()], Path(folder), given.repeats) for name in COMMANDS}
        floor = measure([sys.executable, "-c", LIBRARIES], Path(folder), given.repeats)
    print(f"| slimfed ... | median, s | least | most | aim {AIM_SECONDS} s |\n|---|---|---|---|---|")
    for command, seconds in found.items():
        median = statistics.median(seconds)
        verdict = "met" if median <= AIM_SECONDS else "missed"
        print(f"| `{command}` | {median:.2f} | {min(seconds):.2f} | {max(seconds):.2f} | {verdict} |")
    print(f"| the libraries of `runs` alone | {statistics.median(floor):.2f} | {min(floor):.2f} | {max(floor):.2f} | |")
    if given.out is not None:
        given.out.write_text(json.dumps(_kept(found, floor), indent=1) + "\n", encoding="utf-8")
    return int(any(statistics.median(seconds) > AIM_SECONDS for seconds in found.values()))


def _kept(found: dict[str, list[float]], floor: list[float]) -> dict[str, Any]:
    return {
        "libraries_alone": floor,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "processors": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "versions": {name: version(name) for name in ("slimfed", "typer", "sqlalchemy", "pydantic", "numpy")},
        "seconds": found,
    }


if __name__ == "__main__":
    sys.exit(main())
