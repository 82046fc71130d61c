"""How hypothesis works in every test: no verdict on speed, and on a build server the same examples each time."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "slimfed",
    deadline=None,  # the machine may have other work
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("CI") == "true",
    print_blob=True,
)
settings.load_profile("slimfed")
