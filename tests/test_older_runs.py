"""A run that slimfed 0.1.0 began goes on where it stood: its store, its job file and its checkpoint are read.

``fixtures/run-of-0.1.0`` was written by that version, stopped after 2 of 4 rounds; ``uninterrupted.json`` holds what
the same job gave there without a stop. Messages are int8, so that the checkpoint holds the devices' memories too.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

import slimfed
from slimfed.platform.store.writer import upgrade

FIXTURE = Path(__file__).parent / "fixtures" / "run-of-0.1.0"
UNINTERRUPTED: dict[str, list[dict[str, Any]]] = json.loads((FIXTURE / "uninterrupted.json").read_text())


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> slimfed.RunResult:
    home = tmp_path_factory.mktemp("home")
    shutil.copy(FIXTURE / "store.db", home)
    upgrade(f"sqlite:///{home / 'store.db'}", home)  # as `slimfed db upgrade` does, which an older store asks for
    (run,) = slimfed.open_store(home=home).runs.index
    shutil.copytree(FIXTURE, home / run, ignore=shutil.ignore_patterns("store.db", "uninterrupted.json"))
    engine = create_engine(f"sqlite:///{home / 'store.db'}")
    with engine.begin() as connection:  # where it lies is what a home that was moved would not know
        connection.execute(text("UPDATE runs SET folder = :folder"), {"folder": str(home / run)})
    engine.dispose()
    stopped = slimfed.open_store(home=home).run()
    assert (stopped.status, stopped.figures["rounds"]) == ("stopped", 2)
    return slimfed.resume(stopped, runtime="local", progress=False)


def test_it_is_done_with_the_rounds_that_were_left(resumed: slimfed.RunResult) -> None:
    assert (resumed.status, resumed.cause) == ("done", None)
    assert list(resumed.rounds.index) == [1, 2, 3, 4]


def test_the_clock_counts_the_losses_that_agents_learn_from_in_the_new_rounds(resumed: slimfed.RunResult) -> None:
    """The clock of 0.1.0 left them out."""
    found, before = list(resumed.rounds.virtual_seconds), [row["virtual_seconds"] for row in UNINTERRUPTED["rounds"]]
    assert found[:2] == pytest.approx(before[:2], rel=1e-12)
    for new, old in zip(found[2:], before[2:], strict=True):
        assert old < new < 1.1 * old


@pytest.mark.parametrize("column", ["sparsity", "bytes_up", "bytes_down"])
def test_what_agents_clock_and_structures_decide_is_the_same(resumed: slimfed.RunResult, column: str) -> None:
    assert list(resumed.rounds[column]) == pytest.approx([row[column] for row in UNINTERRUPTED["rounds"]], rel=1e-12)


def test_what_is_learnt_is_the_same_as_far_as_processors_agree(resumed: slimfed.RunResult) -> None:
    """On one processor it is the same to the bit; another one adds up in another order."""
    wanted = UNINTERRUPTED["rounds"]
    assert list(resumed.rounds.train_loss) == pytest.approx([row["train_loss"] for row in wanted], rel=1e-4)
    accuracies = [row["accuracy"] for row in UNINTERRUPTED["evaluations"]]
    assert list(resumed.rounds.accuracy) == pytest.approx(accuracies, abs=5e-3)


def test_every_device_does_what_it_would_have_done(resumed: slimfed.RunResult) -> None:
    devices = resumed.devices()
    for wanted in UNINTERRUPTED["devices"]:
        (row,) = devices[(devices["round"] == wanted["round"]) & (devices["device"] == wanted["device"])].to_dict(
            "records"
        )
        assert row["rank"] == wanted["rank"]
        assert row["sparsity"] == pytest.approx(wanted["sparsity"], abs=1e-12)
        assert row["loss_after"] == pytest.approx(wanted["loss_after"], rel=1e-3)


def test_local_steps_are_known_of_the_new_rounds_only(resumed: slimfed.RunResult) -> None:
    devices = resumed.devices()
    assert devices.local_steps[devices["round"] <= 2].isna().all()
    assert set(devices.local_steps[devices["round"] > 2]) == {resumed.job.training.local_steps}


def test_its_model_can_be_exported(resumed: slimfed.RunResult, tmp_path: Path) -> None:
    assert slimfed.load_slim(resumed.export(tmp_path / "slim")).manifest.provenance.round == 4
