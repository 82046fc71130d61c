"""A target that layers of unequal shares cannot reach is told before the run starts, with the bound that hinders it."""

import pytest
from small_models import build

from slimfed.clients.models.discovery import discover
from slimfed.platform.job.job import Job, parse_job
from slimfed.platform.launch.preflight import shortfall

BLUEPRINT = discover(build("bert"))  # blocks of 6 heads and of 40 channels


def job(target: float, allocation: str, cap: float = 0.8) -> Job:
    pruning = {
        "allocation": allocation,
        "allocation_cap": cap,
        "scope": "layer",
        "structure": "shared",
        "schedule": "cubic",
    }
    return parse_job({"method": {"target_sparsity": target}, "pruning": pruning})


@pytest.mark.parametrize("allocation", ["erk", "cfsp", "zeroth"])
def test_a_cap_that_is_below_the_target_is_named_with_what_is_possible(allocation: str) -> None:
    assert shortfall(job(0.5, allocation), BLUEPRINT.dense()) == ()
    (line,) = shortfall(job(0.7, allocation, cap=0.5), BLUEPRINT.dense())
    assert line == (
        f"method.target_sparsity = 0.7: 50.0% can be removed with allocation '{allocation}', since no block loses more "
        "than pruning.allocation_cap = 0.5, and each keeps a unit"
    )
    assert shortfall(job(0.9, allocation, cap=0.99), BLUEPRINT.dense()) != (), "a head of six is more than a tenth"
    assert shortfall(job(0.7, "equal"), BLUEPRINT.dense()) == ()
