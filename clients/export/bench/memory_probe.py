"""Peak memory of opening and running an exported folder, in a process of its own: ``python -m`` this, FOLDER B L.

Prints the bytes by which the resident set grew, from after the imports to its highest point, as one number; 0 where
the system does not tell (anything but Linux).
"""

import importlib
import subprocess
import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_DEADLINE_SECONDS = 600.0


def measured_growth(folder: Path, batch: int, length: int) -> int:
    """The same, asked from another process. Raises ``RuntimeError`` if that process fails."""
    command = [sys.executable, "-P", "-m", __name__, str(folder), str(batch), str(length)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_DEADLINE_SECONDS)
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {folder} failed: {done.stderr.strip().splitlines()[-1]}")
    return int(done.stdout)


def resident(field: str) -> int:
    """Bytes of this process: "VmRSS" now, "VmHWM" at the highest point; 0 where the system does not tell."""
    if not _STATUS.exists():
        return 0
    lines = _STATUS.read_text(encoding="utf-8").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), 0)


def last_logits(writes: bool) -> dict[str, int]:
    """What a causal-lm (``writes``) is asked when it begins a text: the logits of the last token alone."""
    return {"logits_to_keep": 1} if writes else {}


def _growth(folder: Path, batch: int, length: int) -> int:
    from slimfed.clients.export.formats.registry import format_of
    from slimfed.clients.export.manifest import read
    from slimfed.clients.export.runtime.opened_model import open_model

    manifest = read(folder)
    format = format_of(manifest)
    if format.runtime:  # so that the runtime's own code does not count as the model's memory
        importlib.import_module(format.runtime)

    torch.set_num_threads(1)
    before = resident("VmRSS")
    model = open_model(folder, threads=1).model
    ids = torch.full((batch, length), 3)
    with torch.inference_mode():
        model(input_ids=ids, attention_mask=torch.ones_like(ids), **last_logits(manifest.task == "causal-lm"))
    return resident("VmHWM") - before


if __name__ == "__main__":
    print(_growth(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
