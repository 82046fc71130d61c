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


def test_a_vocabulary_is_trimmed_by_held_out_text_and_the_loss_measured_on_other(fleet: Fleet, tmp_path: Path) -> None:
    export("--out", str(tmp_path / "whole"))
    (written,) = export("--trim-vocabulary", "--out", str(tmp_path / "out"))
    left = written["vocabulary"]
    slim = load_slim(tmp_path / "out")
    assert left["before"] == 1200
    assert left["tokens"] == len(slim.tokenizer) == slim.model.config.vocab_size < 1200
    assert left["chosen_by"] == "every second text of the run's test split"
    assert 0 < left["losses"]["changed"] < 0.2
    assert left["losses"]["accuracy_after"] == pytest.approx(left["losses"]["accuracy_before"], abs=0.1)
    saved = left["saved"]
    assert written["weights"] == "fp16"
    assert saved == (1200 - left["tokens"]) * slim.model.get_input_embeddings().weight.shape[1] * 2
    weights = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "out")]
    assert weights[0] - weights[1] == pytest.approx(saved, rel=0.01)
    predicted = runner.invoke(app, ["predict", str(tmp_path / "out"), "turn on the light", "--json"])
    assert predicted.exit_code == 0, predicted.output


def test_a_file_chooses_the_tokens(fleet: Fleet, home: Path, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("turn on the light\nstop the music\n", encoding="utf-8")
    label = load_job(home / RUN / "job.toml").data.label
    names = open_runtime(load_job(home / RUN / "job.toml").task_spec()).base.labels
    (tmp_path / "rows.csv").write_text(f"text,{label}\nturn on the light,{names[0]}\n", encoding="utf-8")
    for name in ("lines.txt", "rows.csv"):
        out = tmp_path / name.replace(".", "-")
        (written,) = export("--trim-vocabulary", "--vocabulary-text", str(tmp_path / name), "--out", str(out))
        assert written["vocabulary"]["chosen_by"] == name
        slim = load_slim(out)
        whole = open_runtime(load_job(home / RUN / "job.toml").task_spec()).base.tokenizer
        assert slim.tokenizer.tokenize("turn on the light") == whole.tokenize("turn on the light")
        assert written["vocabulary"]["losses"]["changed"] > 0.2
    (more,) = export(
        *("--trim-vocabulary", "--vocabulary-text", str(tmp_path / "lines.txt"), "--min-tokens", "1000"),
        *("--out", str(tmp_path / "more")),
    )
    assert more["vocabulary"]["tokens"] == 1000
    table = runner.invoke(app, ["export", "last", "--trim-vocabulary", "--min-tokens", "900"])
    assert table.exit_code == 0, table.output
    assert "of 1,200" in table.stdout
    assert "accuracy" in table.stdout
    assert (home / RUN / "exports" / "global-safetensors-trimmed").is_dir()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--min-tokens", "9"], "--min-tokens = '9': needs --trim-vocabulary"),
        (["--vocabulary-text", "none.txt"], "--vocabulary-text = 'none.txt': needs --trim-vocabulary"),
        (["--trim-vocabulary", "--vocabulary-text", "none.txt"], "there is no such file"),
        (["--trim-vocabulary", "--format", "peft"], "--format peft holds no embeddings"),
        (["--trim-vocabulary", "--min-tokens", "1201"], "--min-tokens = 1201: the model's tokenizer has 1200"),
    ],
)
def test_a_vocabulary_that_cannot_be_trimmed_so_is_refused(
    fleet: Fleet, arguments: list[str], words: str, tmp_path: Path
) -> None:
    result = runner.invoke(app, ["export", "last", "--out", str(tmp_path / "out"), *arguments])
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


def test_an_empty_file_chooses_nothing(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n\n")
    arguments = ["--trim-vocabulary", "--vocabulary-text", str(tmp_path / "empty.txt"), "--out", str(tmp_path / "out")]
    result = runner.invoke(app, ["export", "last", *arguments])
    assert result.exit_code == 2
    assert "has no text" in result.stderr
