"""Whole runs under `[privacy]`: the epsilon on record is the one that was spent, killed and resumed runs included."""

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from house import ROUNDS, House, die_in_mid_round, tiny_job

from slimfed.strategies.privacy import spent

SAFE = ("bandit.name=random", "method.importance=random", "privacy.clipping_norm=0.05")
KINDS = {
    "fixed": ("privacy.kind=central", "privacy.noise_multiplier=0.3"),
    "adaptive": ("privacy.kind=central", "privacy.clipping=adaptive", "privacy.noise_multiplier=0.3"),
    "local": ("privacy.kind=local", "privacy.epsilon=4"),
}


@pytest.fixture(params=KINDS)
def house(request: pytest.FixtureRequest, tmp_path: Path) -> House:
    return House(tmp_path, tiny_job(*SAFE, *KINDS[request.param]))


def epsilons(house: House, run: str) -> list[float]:
    return [row.epsilon for row in house.rounds(run)]


def test_a_killed_run_resumes_with_the_right_account(house: House) -> None:
    """Killed while half of the devices have sent their updates of round 2, which are noisy anew when it is repeated.

    Under local privacy the server has nothing of a device's but its noisy adapter; centrally it sees losses.
    """
    spec, run = house.job.privacy, house.new_run()
    assert house.compute(run, die_in_mid_round) == -signal.SIGKILL
    assert epsilons(house, run) == [spent(spec, 1)]
    assert house.compute(run) == 0
    lost = 1 if spec.kind == "local" else 0  # what devices have sent is known; a model that was not made is not
    assert epsilons(house, run) == [spent(spec, times) for times in (1, 2 + lost, 3 + lost)]
    row = house.row(run)
    assert (row.status, row.rounds_done) == ("done", ROUNDS)
    assert row.epsilon == spent(spec, ROUNDS + lost)
    tensors, state = house.end(run)
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())
    if spec.clipping == "adaptive":
        assert state["clipping_norm"] not in (None, spec.clipping_norm), "it follows the updates, and is kept"
    rows: list[Any] = [device for number in range(1, ROUNDS + 1) for device in house.devices(run, number)]
    assert {each.status for each in rows} == {"done"}
    told = {(each.examples, each.loss_before, each.loss_after, each.accuracy) for each in rows}
    assert (told == {(1, 0.0, 0.0, None)}) == (spec.kind == "local")
