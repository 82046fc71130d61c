"""Checks of this machine: what a run needs, what is missing, and the remedy."""

import importlib.util
import os
import shutil
import socket
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import psutil

from slimfed.clients.errors import InputError
from slimfed.clients.processors import processor_count
from slimfed.platform.launch.scratch import scratch_base

Level = Literal["ok", "note", "problem"]

_PYTHON = (3, 11)
_PACKAGES = (
    "flwr", "ray", "torch", "transformers", "peft", "datasets", "flwr-datasets",
    "safetensors", "sqlalchemy", "alembic", "pydantic", "typer", "rich",
)  # fmt: skip
_DASHBOARD_PACKAGES = ("streamlit", "plotly")
_MEMORY_BYTES = 4 * 1024**3
_DISK_BYTES = 2 * 1024**3
_HUB = "https://huggingface.co"
_HUB_SECONDS = 2.0


@dataclass(frozen=True)
class Finding:
    """The result of one check: ``level`` is "problem" if a run would fail, "note" if something optional is missing."""

    subject: str
    level: Level
    found: str
    remedy: str = ""

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


def examine(home: Path, store: Callable[[], str]) -> Iterator[Finding]:
    """Run all checks in turn. ``store`` tests the store and returns its description, or raises with the cause."""
    yield _python()
    yield _packages(_PACKAGES, "packages", "problem", "pip install 'slimfed[server]'")
    yield _packages(_DASHBOARD_PACKAGES, "dashboard packages", "note", "pip install 'slimfed[dashboard]'")
    yield _programs()
    yield _loopback()
    yield _scratch()
    yield _processors()
    yield _memory()
    yield _bf16()
    yield _gpu()
    yield _disk(home)
    yield _store(store)
    yield _hub()


def _python() -> Finding:
    found = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] < _PYTHON:
        return Finding("python", "problem", found, f"use Python {_PYTHON[0]}.{_PYTHON[1]} or newer")
    return Finding("python", "ok", found)


def _packages(names: tuple[str, ...], subject: str, level: Level, remedy: str) -> Finding:
    found, missing = [], []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding(subject, level, f"missing: {', '.join(missing)}", remedy)
    return Finding(subject, "ok", ", ".join(found))


def _programs() -> Finding:
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    if not shutil.which("flwr", path=places):
        return Finding("flower program", "note", "missing: flwr", "only --federation needs it: pip install 'flwr'")
    return Finding("flower program", "ok", "flwr")


def _loopback() -> Finding:
    """Ray's processes talk to each other over 127.0.0.1, with a key and a token of the run."""
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
    except OSError as error:
        remedy = "a simulated run needs the loopback interface: ip link set lo up"
        return Finding("ports", "problem", f"127.0.0.1 cannot be listened on ({error.strerror})", remedy)
    return Finding("ports", "ok", "a simulated run listens on 127.0.0.1 alone, and answers only who has the run's key")


def _scratch() -> Finding:
    try:
        return Finding("sockets", "ok", f"in {scratch_base()}")
    except InputError as error:
        return Finding("sockets", "problem", str(error), "set TMPDIR to a folder with a short path that you can write")


def _processors() -> Finding:
    count = processor_count()
    if count < 2:
        return Finding("processors", "note", str(count), "a run works, but server and devices share one core")
    return Finding("processors", "ok", str(count))


def _memory() -> Finding:
    free = psutil.virtual_memory().available
    if free < _MEMORY_BYTES:
        remedy = "a run of the built-in model needs about 4 GiB; close programs or set engine.workers = 1"
        return Finding("memory", "problem", f"{_gib(free)} free", remedy)
    return Finding("memory", "ok", f"{_gib(free)} free of {_gib(psutil.virtual_memory().total)}")


def _bf16() -> Finding:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    for flag in ("amx_bf16", "avx512_bf16", "bf16"):
        if f" {flag}" in flags:
            return Finding("bf16", "ok", f"the processor has {flag}")
    return Finding("bf16", "note", "not in hardware", 'engine.dtype = "auto" takes fp32 here; nothing to do')


def _gpu() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding("gpu", "note", "torch is missing", "pip install 'slimfed[client]'")
    import torch

    if not torch.cuda.is_available():
        return Finding(
            "gpu", "note", "none that torch can use", "runs use the processors; for a GPU install torch with CUDA"
        )
    return Finding("gpu", "ok", ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())))


def _disk(home: Path) -> Finding:
    place = next(folder for folder in (home.absolute(), *home.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if free < _DISK_BYTES:
        return Finding(
            "disk", "problem", f"{_gib(free)} free at {place}", "free some space, or set SLIMFED_HOME elsewhere"
        )
    if not os.access(place, os.W_OK):
        return Finding("disk", "problem", f"{place} cannot be written", "set SLIMFED_HOME to a folder of yours")
    return Finding("disk", "ok", f"{_gib(free)} free at {place}")


def _store(test: Callable[[], str]) -> Finding:
    try:
        return Finding("store", "ok", test())
    except Exception as error:
        return Finding(
            "store", "problem", str(error), "check store.url and SLIMFED_HOME; `slimfed db upgrade` migrates a store"
        )


def _hub() -> Finding:
    address = os.environ.get("HF_ENDPOINT", _HUB)
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=_HUB_SECONDS):
            return Finding("hub", "ok", address)
    except (OSError, ValueError) as error:
        remedy = "only hub ids need it: builtin: models and data, and local folders, work without"
        return Finding("hub", "note", f"{address} was not reached ({error})", remedy)


def _gib(count: int) -> str:
    return f"{count / 1024**3:.1f} GiB"
