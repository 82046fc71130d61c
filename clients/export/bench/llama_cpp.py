"""A GGUF file in the real llama.cpp: how fast it reads a prompt and writes, and the memory it takes.

Each file runs in a process of its own: ``python -m`` this, FILE PROMPT NEW THREADS. Prints one JSON object.
"""

import json
import subprocess
import sys
import time
import urllib.request
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from slimfed.clients.export.bench.memory_probe import resident

_DEADLINE_SECONDS = 600.0
_REPEATS = 3
_TOKEN = 3


@dataclass(frozen=True)
class Speed:
    """``prefill`` and ``decode``: tokens a second of the prompt, and new ones; with one thread, a processor second.

    ``memory``: bytes by which the process grew; 0 where the system does not tell. ``bytes``: of the file.
    """

    prefill: float
    decode: float
    memory: int
    bytes: int


def is_there() -> bool:
    """True if llama.cpp's bindings are installed."""
    return find_spec("xllamacpp") is not None


def measured(file: Path, prompt: int, new: int, threads: int) -> Speed:
    """The speed of one file, the best of a few runs. Raises ``RuntimeError`` if llama.cpp cannot run it."""
    command = [sys.executable, "-P", "-m", __name__, str(file), str(prompt), str(new), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_DEADLINE_SECONDS)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RuntimeError(f"llama.cpp cannot run {file}: {reason:.300}")
    return Speed(**json.loads(done.stdout.splitlines()[-1]))


def _measure(file: Path, prompt: int, new: int, threads: int) -> Speed:
    import xllamacpp

    before = resident("VmRSS")
    settings = xllamacpp.CommonParams()
    settings.model.path = str(file)
    settings.n_ctx, settings.n_parallel, settings.port = prompt + new + 2, 1, 0
    settings.warmup, settings.verbosity = True, 0
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(settings)
    clock = time.process_time if threads == 1 else time.perf_counter  # other programs do not disturb the former

    def seconds(tokens: int) -> float:
        document = {"prompt": [_TOKEN] * prompt, "n_predict": tokens, "temperature": 0}
        started = clock()
        _ask(server.listening_address + "/completion", document | {"ignore_eos": True, "cache_prompt": False})
        return clock() - started

    first, whole = (min(seconds(tokens) for _ in range(_REPEATS)) for tokens in (1, 1 + new))
    grown = resident("VmHWM") - before
    return Speed(prompt / first, new / max(whole - first, 1e-9), max(0, grown), file.stat().st_size)


def _ask(address: str, document: dict[str, Any]) -> Any:
    request = urllib.request.Request(address, json.dumps(document).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=_DEADLINE_SECONDS) as answer:
        return json.load(answer)


if __name__ == "__main__":
    print(json.dumps(asdict(_measure(Path(sys.argv[1]), *map(int, sys.argv[2:5])))))
