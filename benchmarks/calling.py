"""Calls of other programs by a benchmark: limited in time, and with the cause where one fails."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from machine import ROOT, version_of

SLIMFED = [sys.executable, "-c", "from slimfed.platform.cli import main; main()"]
_END_SECONDS = 30.0
_TAIL = 2000


class CallError(RuntimeError):
    """A program failed or ran too long; the text says which and why."""


def call(
    what: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    seconds: float,
    started: Callable[[int], None] = lambda pid: None,
) -> str:
    """The standard output of ``command``. ``started`` is given the process id.

    Raises :class:`CallError`, which begins with ``what``, if it fails or takes more than ``seconds``; then it is ended
    with all that it had started.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=output, stderr=errors)
        try:
            started(process.pid)
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise CallError(f"{what}: not done after {seconds:g} s, and ended. {_end_of(errors)}") from None
        finally:
            if process.poll() is None:
                _end(process)
        if process.returncode:
            raise CallError(f"{what}: failed with exit code {process.returncode}. {_end_of(errors)}")
        output.seek(0)
        return output.read().decode(errors="replace")


def slimfed_environment(home: Path, scratch: Path) -> dict[str, str]:
    """Variables under which this checkout's slimfed runs, installed or not, with its store below ``home``.

    Flower is told slimfed's version, which comes from the metadata of the installed package. Where none is installed,
    metadata are written into ``scratch``.
    """
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    number = version_of("slimfed")
    metadata = scratch / "metadata" / f"slimfed-{number}.dist-info"
    if not _installed():
        metadata.mkdir(parents=True, exist_ok=True)
        text = f"Metadata-Version: 2.1\nName: slimfed\nVersion: {number}\n"
        (metadata / "METADATA").write_text(text, encoding="utf-8")
        paths.append(str(metadata.parent))
    return {"SLIMFED_HOME": str(home), "SLIMFED_STORE": "", "PYTHONPATH": os.pathsep.join(paths)}


def slimfed_run(
    what: str,
    sets: Mapping[str, Any],
    environment: Mapping[str, str],
    seconds: float,
    started: Callable[[int], None] = lambda pid: None,
) -> dict[str, Any]:
    """`slimfed run` with these fields of the job; what `slimfed show --json` then says of the run.

    Raises :class:`CallError`, with the run's cause if it failed.
    """
    command = [*SLIMFED, "run", "--json"]
    command += [part for name, value in sets.items() for part in ("--set", f"{name}={value}")]
    try:
        run = json.loads(call(what, command, environment, seconds, started))["run_id"]
    except CallError as error:
        raise CallError(f"{error}{_cause(environment)}") from None
    return json.loads(call(f"{what}: slimfed show", [*SLIMFED, "show", run, "--json"], environment, seconds))


def _cause(environment: Mapping[str, str]) -> str:
    """The recorded cause of the newest run's end and the ends of its logs, if there is a run."""
    try:
        shown = json.loads(call("slimfed show", [*SLIMFED, "show", "last", "--json"], environment, 60.0))
    except (CallError, json.JSONDecodeError):
        return ""
    text = f"\nThe run {shown['run_id']} is {shown['status']}: {shown['cause']}"
    for log in sorted(Path(shown["folder"], "logs").glob("*.log")):  # they go with the benchmark's temporary folder
        text += f"\n--- the end of {log.name}:\n{log.read_text(encoding='utf-8', errors='replace').strip()[-_TAIL:]}"
    return text


def _installed() -> bool:
    try:
        version("slimfed")
    except PackageNotFoundError:
        return False
    return True


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and its descendants, those first that could tidy up."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for signal in ("terminate", "kill"):
        for member in family:
            try:
                getattr(member, signal)()
            except psutil.NoSuchProcess:
                continue
        _, family = psutil.wait_procs(family, timeout=_END_SECONDS)
    process.wait()


def _end_of(file: Any) -> str:
    file.seek(0)
    text = file.read().decode(errors="replace").strip()
    return f"The end of its messages:\n{text[-_TAIL:]}" if text else "It has said nothing."
