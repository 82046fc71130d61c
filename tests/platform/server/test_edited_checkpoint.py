"""A checkpoint that somebody edited, sums and all: refused with the field, or one that the run can go on with."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from house import DEVICES, tiny_job

from slimfed.clients.errors import InputError
from slimfed.clients.node.runtime import open_runtime
from slimfed.platform.home import RunFolder
from slimfed.platform.server import checkpoint
from slimfed.platform.server.assembly import new_fleet, restored_fleet
from slimfed.strategies.speed_model import Pace

JOB = tiny_job("bandit.name=random")
RUNTIME = open_runtime(JOB.task_spec())


def content() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    fleet = new_fleet(RUNTIME, JOB)
    fleet.round = 2
    for device in fleet.devices:
        device.pace, device.rank = Pace(1.0, 2.0, 3.0), 4
    return fleet.checkpoint()


TENSORS, STATE = content()


def restored(folder: Path, tensors: dict[str, np.ndarray], state: dict[str, Any]) -> Any:
    checkpoint.save(folder / "checkpoints", 2, tensors, state)
    return restored_fleet(RUNTIME, JOB, RunFolder(folder), 2)


def end(folder: Path, state: dict[str, Any]) -> Any:
    """The restored fleet, or the error."""
    try:
        return restored(folder, TENSORS, state)
    except InputError as error:
        return error


def refused(folder: Path, tensors: dict[str, np.ndarray], state: dict[str, Any]) -> str:
    with pytest.raises(InputError, match="does not fit the run's job") as error:
        restored(folder, tensors, state)
    assert "delete the folder to resume from an earlier one" in str(error.value)
    return str(error.value)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    fleet = restored(tmp_path, TENSORS, STATE)
    assert (fleet.round, len(fleet.devices)) == (2, DEVICES)


SPOILT: dict[str, Any] = {"text": "x", "list": [1, [2]], "nan": float("nan"), "below": -1, "huge": 1e300, "none": None}
FREE = {"shuffle", "clipping_norm", "memory_ranks"}


@pytest.mark.parametrize("name", sorted(STATE))
def test_every_field_of_the_state(tmp_path: Path, name: str) -> None:
    """Deleted, or with another value: an error that says so, or a fleet with finite numbers."""
    for kind, value in SPOILT.items():
        fleet = end(tmp_path / kind, copy.deepcopy(STATE) | {name: value})
        if isinstance(fleet, InputError):
            assert "does not fit the run's job" in str(fleet)
        else:
            assert name in FREE | {"virtual_clock", "score_weight"}, (name, kind)
            assert np.isfinite([fleet.virtual_clock, fleet.score_weight]).all()
    state = copy.deepcopy(STATE)
    del state[name]
    if name not in FREE:
        refused(tmp_path / "gone", TENSORS, state)


@pytest.mark.parametrize("name", sorted({key.split("/")[0] for key in TENSORS}))
def test_every_kind_of_tensor(tmp_path: Path, name: str) -> None:
    """Missing, of another shape or type, or with NaN."""
    key = next(each for each in TENSORS if each.split("/")[0] == name)
    good = TENSORS[key]
    refused(tmp_path / "gone", {each: value for each, value in TENSORS.items() if each != key}, STATE)
    refused(tmp_path / "longer", TENSORS | {key: np.concatenate([good, good])}, STATE)
    if good.dtype.kind == "f" and good.size:
        spoilt = good.copy()
        spoilt.reshape(-1)[-1] = np.inf
        refused(tmp_path / "infinite", TENSORS | {key: spoilt}, STATE)


def test_the_fault_is_named(tmp_path: Path) -> None:
    assert "round is 7" in refused(tmp_path / "a", TENSORS, STATE | {"round": 7})
    assert "ranks: device 1 has rank 999" in refused(
        tmp_path / "b", TENSORS | {"ranks": np.array([4, 999, 4, 4], np.int32)}, STATE
    )
