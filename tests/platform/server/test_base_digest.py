"""A run keeps the base it began with: another one under the same name is neither trained on nor exported."""

import json
from pathlib import Path

import pytest
import torch
from exported import save_base, source
from finished_run import RUN, finished_run
from typer.testing import CliRunner

from slimfed.clients.errors import InputError
from slimfed.clients.models.loading import LoadedModel, load_model
from slimfed.clients.spec import ModelSpec
from slimfed.platform.cli import app
from slimfed.platform.home import RunFolder, run_folder
from slimfed.platform.server.base_digest import check_base, pin_base

LABELS = ("no", "yes")


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    save_base(source("bert", False), tmp_path / "model")
    return ModelSpec(path=str(tmp_path / "model"))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    (tmp_path / RUN).mkdir()
    return run_folder(tmp_path, RUN)


def opened(spec: ModelSpec, seed: int = 1) -> LoadedModel:
    return load_model(spec, LABELS, seed)


def test_the_base_is_written_down_once_and_held_against_later(folder: RunFolder, spec: ModelSpec) -> None:
    pin_base(folder, spec, opened(spec))
    written = folder.base.read_bytes()
    assert json.loads(written)["path"] == spec.path
    pin_base(folder, spec, opened(spec))
    assert folder.base.read_bytes() == written
    assert [path.name for path in folder.path.iterdir()] == ["base.json"]


def test_one_changed_weight_is_another_base(folder: RunFolder, spec: ModelSpec) -> None:
    base = opened(spec)
    pin_base(folder, spec, base)
    with torch.no_grad():
        base.model.get_parameter("bert.encoder.layer.1.output.dense.weight")[0, 0] += 1e-3
    for hold in (pin_base, check_base):
        with pytest.raises(InputError, match=rf"model': is not the base that run {RUN} began with"):
            hold(folder, spec, base)


def test_a_run_that_has_not_begun_has_none(folder: RunFolder, spec: ModelSpec) -> None:
    assert len(check_base(folder, spec, opened(spec))) == 64
    assert not folder.base.exists()


def test_a_damaged_note_is_refused_by_name(folder: RunFolder, spec: ModelSpec) -> None:
    folder.base.write_text("[")
    with pytest.raises(InputError, match=r"base\.json' cannot be read"):
        check_base(folder, spec, opened(spec))


def test_a_base_that_changed_after_the_run_is_not_exported(
    tmp_path: Path, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIMFED_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SLIMFED_STORE", raising=False)
    finished_run(tmp_path / "home", {"model": {"path": spec.path}, "bandit": {"ranks": [2]}})
    save_base(source("bert", False, seed=1), tmp_path / "model")
    result = CliRunner().invoke(app, ["export", RUN, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2, result.output
    assert f"is not the base that run {RUN} began with" in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()
