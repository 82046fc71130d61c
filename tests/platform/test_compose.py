"""``slimfed compose``: the sum of what two runs learnt, and what cannot be added."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from finished_run import finished_run
from typer.testing import CliRunner

from slimfed.clients.adapters.training.merging import fold
from slimfed.clients.export import load_slim
from slimfed.clients.node.runtime import open_runtime
from slimfed.clients.pruning.adapter_slicing import narrow
from slimfed.clients.pruning.model_slicing import slice_model
from slimfed.platform.cli import app
from slimfed.platform.job.job import load_job

runner = CliRunner()
FIRST, SECOND = "20260101-000000-aaa", "20260101-000001-bbb"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLIMFED_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SLIMFED_STORE", raising=False)
    return tmp_path / "home"


def test_the_sum_is_the_base_and_both_changes_with_the_first_head(home: Path, tmp_path: Path) -> None:
    fleet = finished_run(home, run_id=FIRST)
    other = finished_run(home, {"adapter": {"scaling": 0.5}, "seed": 6}, run_id=SECOND)
    out = tmp_path / "sum"
    result = runner.invoke(app, ["compose", FIRST, SECOND, "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["runs"] == [FIRST, SECOND]
    slim = load_slim(out)
    assert slim.manifest.provenance.subject == "composed"
    runtime = open_runtime(load_job(home / FIRST / "job.toml").task_spec())
    model = slice_model(runtime.base.model, fleet.structure)
    dense = fleet.blueprint.dense()
    fold(model, narrow(fleet.adapter, dense, fleet.structure), 2.0)
    fold(model, narrow(replace(other.adapter, head={}), dense, fleet.structure), 0.5)
    batch = runtime.test.collate(np.arange(8))
    batch.pop("labels")
    with torch.no_grad():
        torch.testing.assert_close(slim.model(**batch).logits, model(**batch).logits)


def test_what_cannot_be_added_is_refused_by_name_and_leaves_nothing(home: Path, tmp_path: Path) -> None:
    finished_run(home, run_id=FIRST)
    finished_run(home, {"model": {"path": "builtin:tiny-decoder", "task": "causal-lm"}}, run_id=SECOND)
    out = tmp_path / "sum"
    result = runner.invoke(app, ["compose", FIRST, SECOND, "--out", str(out)])
    assert result.exit_code == 2
    assert "builtin:tiny-decoder" in result.output
    assert "only changes of one base can be added" in result.output.replace("\n", " ")
    assert not out.exists()
    out.mkdir()
    assert runner.invoke(app, ["compose", FIRST, FIRST, "--out", str(out)]).exit_code == 2
