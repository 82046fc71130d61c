"""What holds for every test.

One thread: the tests' models are so small that threads only wait for each other. Hypothesis passes no verdict on speed,
and draws the same examples each time on a build server.
"""

import os
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports numpy or torch
os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="slimfed-test-data-")  # no test writes to the user's own

from hypothesis import HealthCheck, settings

settings.register_profile(
    "slimfed",
    deadline=None,  # the machine may have other work
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("CI") == "true",
    print_blob=True,
)
settings.load_profile("slimfed")
