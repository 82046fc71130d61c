"""A whole run whose rounds close early: killed and resumed, looked at in store and terminal, its checkpoint edited."""

import copy
import json
import math
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from house import DEVICES, ROUNDS, House, die_in_mid_round, tiny_job
from typer.testing import CliRunner

from slimfed.clients.errors import InputError
from slimfed.clients.node.runtime import open_runtime
from slimfed.dashboard.figures.frames import rounds_frame
from slimfed.platform.cli import app
from slimfed.platform.home import RunFolder, run_folder
from slimfed.platform.server import checkpoint
from slimfed.platform.server.assembly import restored_fleet
from slimfed.platform.store.dashboard_reader import Insight
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store

LATE = ("server.mode=buffered", "server.buffer=2", "messages.precision=int8")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("late"), tiny_job(*LATE))


@pytest.fixture(scope="module")
def whole(house: House) -> str:
    run = house.new_run()
    assert house.compute(run) == 0
    return run


def facts(house: House, run: str) -> list[dict[str, Any]]:
    names = ("round", "train_loss", "virtual_clock", "bytes_up", "accepted", "asked", "late", "staleness", "in_flight")
    return [{name: getattr(row, name) for name in names} for row in house.rounds(run)]


def test_a_killed_server_resumes_to_the_same_bits_with_updates_in_flight(house: House, whole: str) -> None:
    run = house.new_run()
    assert house.compute(run, die_in_mid_round) == -signal.SIGKILL
    tensors, state = checkpoint.load(checkpoint.path_of(run_folder(house.home, run).checkpoints, 1))
    assert len(state["in_flight"]) == DEVICES - 2, "the server was killed while they were in flight"
    assert house.compute(run) == 0
    (tensors, state), (others, other) = house.end(run), house.end(whole)
    assert state == other
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, others[name], err_msg=name)
    assert facts(house, run) == facts(house, whole)


def test_the_store_and_the_terminal_tell_what_came_late(house: House, whole: str, monkeypatch) -> None:
    rounds = facts(house, whole)
    assert [row["round"] for row in rounds] == list(range(1, ROUNDS + 1))
    at_work = 0
    for row in rounds:
        devices = house.devices(whole, row["round"])
        arrived = [each.staleness for each in devices if each.status == "done"]
        assert row["accepted"] == len(arrived)
        assert row["late"] == sum(rounds > 0 for rounds in arrived)
        assert row["staleness"] == pytest.approx(sum(arrived) / len(arrived))
        assert at_work + row["asked"] == row["accepted"] + row["in_flight"], "nothing is lost"
        assert Counter(each.status for each in devices).keys() <= {"done", "in-flight"}
        at_work = row["in_flight"]
    assert rounds[0]["asked"] == DEVICES
    assert any(row["late"] for row in rounds)
    with Store.open("sqlite", house.home) as store:
        reader = Reader(store.engine)
        frame = rounds_frame(reader.rounds(whole), reader.evaluations(whole)).query("round > 0")
        slowest = Insight(store.engine).late_devices(whole, ROUNDS, DEVICES)
    assert frame["late"].tolist() == [row["late"] for row in rounds]
    assert len(slowest) == sum(row["asked"] for row in rounds), "on a timeline, work begins in its own round"
    monkeypatch.setenv("SLIMFED_HOME", str(house.home))
    monkeypatch.setenv("COLUMNS", "300")
    written = CliRunner().invoke(app, ["show", whole]).stdout
    assert f"{ROUNDS} of {ROUNDS}, {DEVICES} devices, rounds close with 2 updates" in written
    assert "late (mean rounds)" in written
    assert "in flight" in written
    shown = json.loads(CliRunner().invoke(app, ["show", whole, "--json"]).stdout)["round_list"]
    assert [{name: row[name] for name in rounds[0]} for row in shown] == rounds


def _spoilt(item: dict[str, Any]) -> list[dict[str, Any]]:
    """The same with one field gone, or of another kind, anywhere in it."""
    found = []
    for name, value in item.items():
        if isinstance(value, dict):
            found += [item | {name: inner} for inner in _spoilt(value)]
        else:
            found += [item | {name: other} for other in ("x", math.inf, None, [1])]
        found.append({key: other for key, other in item.items() if key != name})
    return found


def test_an_edited_update_in_flight_is_refused_or_harmless(house: House, whole: str, tmp_path: Path) -> None:
    tensors, state = house.end(whole)
    runtime, job = open_runtime(house.job.task_spec()), house.job
    first, refused = state["in_flight"][0], 0

    def restore(tensors: dict[str, np.ndarray], item: dict[str, Any]) -> Any:
        """The restored fleet, or the error."""
        edited = copy.deepcopy(state) | {"in_flight": [item, *state["in_flight"][1:]]}
        checkpoint.save(tmp_path / "checkpoints", ROUNDS, tensors, edited)
        try:
            return restored_fleet(runtime, job, RunFolder(tmp_path), ROUNDS)
        except InputError as error:
            return str(error)

    assert len(restore(tensors, first).in_flight) == len(state["in_flight"])
    for item in _spoilt(first):
        fleet = restore(tensors, item)
        if isinstance(fleet, str):
            assert "does not fit the run's job" in fleet
            refused += 1
        else:
            assert math.isfinite(fleet.in_flight[0].arrival)
            assert fleet.in_flight[0].report.examples > 0
    assert refused > 60
    for name in [name for name in tensors if name.startswith(f"in-flight/{first['assignment']['device']}/")]:
        for edited in (tensors[name][:-1], tensors[name].astype(np.float64), tensors[name] * np.float32("nan")):
            assert "does not fit the run's job" in restore(tensors | {name: edited}, first), name
