"""A run on a quantised base: resumed to the bit, exported as it was measured, and a base for other runs itself."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import slimfed
from slimfed.clients.errors import InputError
from slimfed.clients.export.formats.registry import FORMATS
from slimfed.clients.export.manifest import read, weights_digest
from slimfed.clients.models.loading import load_model
from slimfed.clients.models.quantised_base import quantised_linears
from slimfed.clients.node.identity import HostedDevice
from slimfed.clients.node.runtime import open_hosted_runtime, open_runtime
from slimfed.platform.cli import app
from slimfed.platform.export import GLOBAL, Exporter
from slimfed.platform.home import RunFolder
from slimfed.platform.server import checkpoint
from slimfed.platform.server.base_digest import check_base
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store

pytestmark = pytest.mark.timeout(300)

JOB: dict[str, Any] = {
    "name": "quantised",
    "model": {"quantization": "nf4"},
    "data": {"max_length": 16},
    "fleet": {"devices": 4},
    "method": {"target_sparsity": 0.4},
    "bandit": {"local_steps": [], "ranks": [2, 4]},
    "training": {"rounds": 2, "local_steps": 3, "batch_size": 4},
    "engine": {"name": "cohort", "workers": 1, "cohort_size": 2, "dtype": "fp32"},
}
SETS = [
    "model.quantization=nf4",
    "fleet.devices=4",
    "engine.name=cohort",
    "engine.cohort_size=2",
    "engine.workers=1",
    "engine.dtype=fp32",
]
ROWS = [("turn on the light", "on"), ("switch it off", "off"), ("make it bright", "on"), ("make it dark", "off")]


def job(home: Path, **changes: Any) -> slimfed.Job:
    return slimfed.load_job(JOB, set={"data.path": str(home / "data"), **changes})


def run(home: Path, **changes: Any) -> slimfed.RunResult:
    return slimfed.run(job(home, **changes), runtime="local", home=home, progress=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs, with their text in it."""
    folder = tmp_path_factory.mktemp("home")
    write_text(folder / "data")
    return folder


def write_text(folder: Path) -> None:
    folder.mkdir()
    for split in ("train", "test"):
        lines = ["text,label", *(f"{text} {n},{label}" for n in range(6) for text, label in ROWS)]
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def whole(home: Path) -> slimfed.RunResult:
    return run(home)


@pytest.fixture(scope="module")
def exporter(home: Path, whole: slimfed.RunResult) -> Exporter:
    with Store.open("sqlite", home) as store:
        return Exporter(Reader(store.engine).find_run(whole.id), {})


def test_it_is_resumed_to_the_bit(home: Path, whole: slimfed.RunResult) -> None:
    def stop(_: slimfed.RoundFigures) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        slimfed.run(job(home), runtime="local", on_round=stop, home=home, progress=False)
    stopped = slimfed.open_store(home=home).runs.index[0]
    again = slimfed.resume(stopped, runtime="local", home=home, progress=False)
    assert (whole.status, again.status) == ("done", "done")
    assert again.accuracy == whole.accuracy
    arrays = []
    for each in (whole, again):
        newest = checkpoint.newest(RunFolder(each.folder).checkpoints)
        assert newest is not None
        arrays.append(checkpoint.load(newest)[0])
    assert arrays[0].keys() == arrays[1].keys()
    for name, value in arrays[0].items():
        np.testing.assert_array_equal(value, arrays[1][name], err_msg=name)


def test_what_is_exported_is_what_was_measured(exporter: Exporter, whole: slimfed.RunResult, tmp_path: Path) -> None:
    exporter.export(GLOBAL, "safetensors", tmp_path / "out", "fp32")
    slim = slimfed.load_slim(tmp_path / "out")
    manifest = slim.manifest
    assert (manifest.base.quantization, manifest.weights) == ("nf4", "fp32")
    assert "nf4 in the linear modules of the blocks" in (tmp_path / "out" / "README.md").read_text()
    assert not quantised_linears(slim.model)
    runtime = open_runtime(whole.job.task_spec())
    adapter, structure = exporter.source(GLOBAL).narrowed, exporter.fleet.structure
    assert runtime.examine(adapter, structure).accuracy == whole.accuracy
    batch = runtime.base.tokenizer(["turn on the light", "stop"], return_tensors="pt", padding=True)
    with torch.no_grad():
        torch.testing.assert_close(slim.model(**batch).logits, exporter.source(GLOBAL).model()(**batch).logits)


def test_an_adapter_alone_names_its_base_and_opens_on_it(exporter: Exporter, tmp_path: Path) -> None:
    exporter.export(GLOBAL, "peft", tmp_path / "out")
    assert "on the base's own weights the adapter is not" in (tmp_path / "out" / "README.md").read_text()
    manifest = read(tmp_path / "out")
    model, tokenizer = FORMATS["peft"].open(tmp_path / "out", manifest)
    batch = tokenizer(["turn on the light", "stop"], return_tensors="pt", padding=True)
    with torch.no_grad():
        found, expected = (each(**batch).logits for each in (model, exporter.source(GLOBAL).model()))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_base_is_the_rounded_one_on_server_and_nodes(exporter: Exporter, whole: slimfed.RunResult) -> None:
    pinned = json.loads(exporter.folder.base.read_text())["sha256"]
    spec = whole.job.model
    other = load_model(spec.model_copy(update={"quantization": "int8"}), exporter.base.labels, whole.job.seed)
    with pytest.raises(InputError, match="is not the base that run"):
        check_base(exporter.folder, spec, other)
    runtime = open_runtime(whole.job.task_spec())
    assert weights_digest(runtime.base.model.cpu(), runtime.base.head) == pinned


def test_a_real_node_quantises_the_base_that_it_has(
    whole: slimfed.RunResult, tmp_path: Path, exporter: Exporter
) -> None:
    write_text(tmp_path / "own")
    task = whole.job.task_spec().model_copy(update={"labels": exporter.base.labels})
    base = open_hosted_runtime(task, HostedDevice(1, tmp_path / "own")).base
    assert quantised_linears(base.model)
    pinned = json.loads(exporter.folder.base.read_text())["sha256"]
    assert weights_digest(base.model.cpu(), base.head) == pinned


def test_another_run_starts_from_it(home: Path, whole: slimfed.RunResult) -> None:
    changes = {"model.path": f"run:{whole.id}", "model.quantization": "int8", "training.rounds": 1}
    child = run(home, **changes, **{"engine.name": "sequential"})
    assert child.status == "done", child.cause
    with Store.open("sqlite", home) as store:
        began = Reader(store.engine).find_run(child.id)
    assert began.base_accuracy == pytest.approx(whole.accuracy, abs=0.1), "rounded once more, to int8"


def test_check_says_what_the_base_takes(home: Path) -> None:
    said = CliRunner().invoke(app, ["check", *(f"--set={name}" for name in SETS), f"--set=data.path={home / 'data'}"])
    assert said.exit_code == 0, said.output
    assert re.search(r"^base +984 kB with the blocks in nf4, 2\.3 MB without$", said.output, re.MULTILINE), said.output


def test_what_cannot_be_is_refused_before_it_starts() -> None:
    wrong = CliRunner().invoke(app, ["check", "--set", "model.quantization=int4"])
    assert wrong.exit_code == 2
    pat = CliRunner().invoke(app, ["check", "--set", "model.quantization=nf4", "--set", "method.adapter=pat"])
    assert pat.exit_code == 2
    assert "model.quantization = 'nf4': method.adapter = 'pat'" in pat.output
