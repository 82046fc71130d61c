"""What holds for every test.

One thread: the tests' models are so small that threads only wait for each other. Hypothesis passes no verdict on speed,
and draws the same examples each time on a build server.
"""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports numpy or torch
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # as `make test` does, so that pytest by itself finds the same faults
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="slimfed-test-data-")  # no test writes to the user's own

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "slimfed",
    deadline=None,  # the machine may have other work
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("CI") == "true",
    print_blob=True,
)
settings.load_profile("slimfed")


@pytest.fixture(scope="session")
def shared_cache(request: pytest.FixtureRequest) -> Path:
    """Where a real model that was dequantised stays, for the next run of the tests, too."""
    folder: Path = request.config.rootpath / ".pytest_cache" / "slimfed"
    return folder
