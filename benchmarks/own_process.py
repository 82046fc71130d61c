"""A measurement of a benchmark in a process of its own, which no earlier one has warmed or filled."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_MARK = "MEASURED "


def measure_in_own_process(script: str, what: Any) -> dict[str, Any]:
    """What ``script --one WHAT`` tells by :func:`tell`; without its course it is shown on standard error, too."""
    command = [sys.executable, script, "--one", json.dumps(what)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    line = next(line for line in output.splitlines() if line.startswith(_MARK))
    result: dict[str, Any] = json.loads(line.removeprefix(_MARK))
    shown = {name: value for name, value in result.items() if name != "course"}
    print(json.dumps(shown), file=sys.stderr, flush=True)
    return result


def tell(result: dict[str, Any]) -> None:
    """Give the result to the process that asked for it."""
    print(_MARK + json.dumps(result))


def keep(path: Path, found: dict[str, Any]) -> None:
    """Write all results so far."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
