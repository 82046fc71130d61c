"""Hub ids where no hub can be reached: the local cache serves, and what it lacks is told within seconds."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from slimfed.clients import builtin

ENCODER = Path(builtin.__file__).parent / "weights" / "tiny-encoder"

# In a process of its own, because the hub's settings are read once, at import.
PROGRAM = """
import json, time
from slimfed.clients.data.text import load_data
from slimfed.clients.errors import InputError
from slimfed.clients.models.loading import load_model
from slimfed.clients.spec import DataSpec, ModelSpec

def timed(load, *arguments):
    started = time.monotonic()
    try:
        answer = load(*arguments).head[-2:]
    except InputError as error:
        answer = str(error)
    return time.monotonic() - started, answer

print(json.dumps({
    "model": timed(load_model, ModelSpec(path="nobody/nothing"), ("a", "b"), 1),
    "data": timed(load_data, DataSpec(path="nobody/nothing"), "classification"),
    "cached": timed(load_model, ModelSpec(path="some/encoder"), ("a", "b"), 1),
}))
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of somebody who has loaded some/encoder before."""
    folder = tmp_path_factory.mktemp("cache")
    repo = folder / "models--some--encoder"
    shutil.copytree(ENCODER, repo / "snapshots" / "abc123")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc123")
    return folder


@pytest.mark.parametrize("offline", ["0", "1"])
def test_without_a_hub(cache: Path, offline: str) -> None:
    # Nothing listens on port 9, so that the hub is unreachable on a machine with a network, too.
    hub = {"HF_HUB_OFFLINE": offline, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, **hub}, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert max(seconds for seconds, _ in told.values()) < 15
    assert 'model.path = "nobody/nothing" is not a folder here, the hub cannot be reached' in told["model"][1]
    assert 'data.path = "nobody/nothing" is not a folder here' in told["data"][1]
    assert told["cached"][1] == ["classifier.weight", "classifier.bias"]
