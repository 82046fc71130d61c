"""On what a benchmark ran: kept with every result, so that results of different days can lie in one file."""

import os
import platform
import subprocess
import tomllib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ("slimfed", "torch", "transformers", "peft", "flwr", "ray")
# Of the instruction sets that are recorded, those that a table's footnote names.
_NAMED = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def machine(libraries: Iterable[str] = LIBRARIES) -> dict[str, Any]:
    """Versions, Python, processor, cores, instruction sets (AVX and AMX), GPUs and the moment, for JSON."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version_of(name) for name in libraries},
        "python": platform.python_version(),
        "processor": _cpuinfo("model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "instruction_sets": sorted(f for f in _cpuinfo("flags").split() if f.startswith(("avx", "amx"))),
        "gpus": ask_gpus("name"),
    }


def load() -> float:
    """Load average of the last minute."""
    return os.getloadavg()[0]


def version_of(name: str) -> str:
    """The installed version; of slimfed itself, if it is not installed, that of its checkout; else "none"."""
    try:
        return version(name)
    except PackageNotFoundError:
        if name != "slimfed":
            return "none"
        return str(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def ask_gpus(fields: str, query: str = "gpu") -> list[str]:
    """Lines of ``nvidia-smi --query-QUERY=FIELDS``, a GPU or process each; none without the program or a GPU."""
    command = ["nvidia-smi", f"--query-{query}={fields}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def words(entry: Mapping[str, Any]) -> str:
    """A result's :func:`machine` and load averages as the footnote of its table; what is missing is said."""
    seen = entry["machine"]
    named = [name for name in _NAMED if name in (seen["instruction_sets"] or ())]
    sets = ", ".join(named) if seen["instruction_sets"] is not None else "instruction sets not recorded"
    gpus = "".join(f", {name}" for name in sorted(set(seen["gpus"])))
    loads = ", ".join(f"{value:.1f}" for value in entry["load"])
    turns = "it" if len(entry["load"]) == 1 else "each turn"
    versions = ", ".join(f"{name} {number}" for name, number in seen["versions"].items())
    return (
        f"{(seen['date'] or 'date not recorded').split('T')[0]}, {seen['processor'] or 'processor not recorded'}, "
        f"{seen['cores']} cores ({sets or 'neither AVX nor AMX'}){gpus}; load average before {turns} {loads}; "
        f"Python {seen['python'] or 'not recorded'}, {versions}"
    )


def _cpuinfo(field: str) -> str:
    """The first value of ``field`` in /proc/cpuinfo, or ""."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.split(":")[0].strip() == field), "")
