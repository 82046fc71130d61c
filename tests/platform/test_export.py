"""``slimfed export``: what it writes for whom, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from finished_run import DEVICES, RUN, finished_run
from typer.testing import CliRunner

from slimfed.clients.export import load_slim
from slimfed.clients.node.runtime import open_runtime
from slimfed.platform.cli import app
from slimfed.platform.job.job import load_job
from slimfed.platform.server.evaluator import GlobalEvaluator
from slimfed.strategies.server_state import Fleet

runner = CliRunner()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLIMFED_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SLIMFED_STORE", raising=False)
    return tmp_path / "home"


@pytest.fixture
def fleet(home: Path) -> Fleet:
    return finished_run(home)


def export(*arguments: str) -> list[dict]:
    result = runner.invoke(app, ["export", "last", "--json", *arguments])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_global_model_is_the_one_that_was_evaluated(fleet: Fleet, home: Path, tmp_path: Path) -> None:
    (written,) = export("--out", str(tmp_path / "out"))
    assert written["sparsity"] == pytest.approx(fleet.structure.sparsity)
    slim = load_slim(tmp_path / "out")
    runtime = open_runtime(load_job(home / RUN / "job.toml").task_spec())
    expected = GlobalEvaluator(runtime, torch.get_num_threads()).evaluate(fleet.adapter, fleet.structure)
    batch = runtime.test.collate(np.arange(len(runtime.test)))
    labels = batch.pop("labels")
    with torch.no_grad():
        right = slim.model(**batch).logits.argmax(-1) == labels
    assert float(right.double().mean()) == pytest.approx(expected.accuracy)
    assert slim.manifest.provenance.run == RUN
    assert slim.manifest.provenance.subject == "global"
    assert slim.manifest.labels == runtime.base.labels


def test_all_models_go_to_folders_of_their_own(fleet: Fleet, tmp_path: Path) -> None:
    written = export("--all", "--out", str(tmp_path / "out"))
    assert [Path(each["folder"]).name for each in written] == ["global", *(f"device-{d}" for d in range(DEVICES))]
    for number, device in enumerate(fleet.devices):
        slim = load_slim(tmp_path / "out" / f"device-{number}")
        assert slim.manifest.structure(fleet.blueprint) == device.structure
        assert slim.manifest.provenance.subject == f"device {number}"


def test_without_a_folder_it_goes_to_the_runs_own(fleet: Fleet, home: Path) -> None:
    (written,) = export("--device", "1")
    assert Path(written["folder"]) == home / RUN / "exports" / "device-1-safetensors"
    assert written["bytes"] > 1e6
    again = runner.invoke(app, ["export", "last", "--device", "1"])
    assert again.exit_code == 2
    assert "exists already" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no-run"], "there is no such run"),
        (["last", "--device", "7"], "has devices 0 to 2"),
        (["last", "--device", "1", "--all"], "give one of them"),
        (["last", "--format", "pickle"], "must be one of 'gguf', 'onnx', 'onnx-int8', 'peft', 'safetensors'"),
        (["last", "--out", "."], "exists already"),
    ],
)
def test_bad_input_is_refused(fleet: Fleet, arguments: list[str], words: str) -> None:
    result = runner.invoke(app, ["export", *arguments])
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_run_without_a_checkpoint_has_nothing_to_export(fleet: Fleet, home: Path) -> None:
    for path in (home / RUN / "checkpoints").glob("*/*"):
        path.unlink()
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    result = runner.invoke(app, ["export", RUN])
    assert result.exit_code == 2
    assert "has no checkpoint yet" in result.stderr
