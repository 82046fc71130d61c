"""Text of one's own: one file, a validation file, and what a run is judged by, from `check` to the finished run."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import slimfed
from slimfed.clients.builtin.commands import commands
from slimfed.platform.api.local_runtime import compute
from slimfed.platform.cli import app
from slimfed.platform.cli.references import make_references
from slimfed.platform.home import RunFolder
from slimfed.platform.inputs import pinned_inputs
from slimfed.platform.job.compatibility import problems_of_run
from slimfed.platform.job.presets import PRESETS
from slimfed.platform.job.references import REFERENCES, Reference, reference_job
from slimfed.platform.launch.journal import StoreJournal
from slimfed.platform.launch.launcher import LaunchPlan, Outcome
from slimfed.platform.launch.progress import NoDisplay
from slimfed.platform.launch.workers import Sizing
from slimfed.platform.standing import standing
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store

ROWS = [{"request": row.text, "intent": row.label, "user": row.user} for row in commands()[0][:300]]
SMALL: dict[str, Any] = {
    "seed": 3,
    "fleet": {"devices": 3},
    "bandit": {"ranks": [2, 4]},
    "training": {"rounds": 2, "local_steps": 2, "learning_rate": 5e-3},
    "engine": {"workers": 1, "cohort_size": 3, "dtype": "fp32"},
    "evaluation": {"device_examples": 20, "examples": 25},
}


def write(file: Path, rows: list[dict[str, str]]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def job(path: Path, **data: Any) -> dict[str, Any]:
    return SMALL | {"data": {"path": str(path), "text": "request", "label": "intent", "max_length": 16} | data}


def row_of(result: slimfed.RunResult) -> Any:
    with Store.open("sqlite", result.home) as store:
        return Reader(store.engine).find_run(result.id)


@pytest.fixture(scope="module")
def one_file(tmp_path_factory: pytest.TempPathFactory) -> slimfed.RunResult:
    folder = tmp_path_factory.mktemp("one-file")
    file = write(folder / "requests.csv", ROWS)
    return slimfed.run(job(file, test_share=0.2), runtime="local", progress=False, home=folder / "home")


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory) -> slimfed.RunResult:
    folder = tmp_path_factory.mktemp("validated")
    text = folder / "text"
    text.mkdir()
    for name, rows in (("train", ROWS[:200]), ("validation", ROWS[200:260]), ("test", ROWS[260:])):
        write(text / f"{name}.csv", rows)
    return slimfed.run(job(text), runtime="local", progress=False, home=folder / "home")


def test_a_run_on_one_file_pins_its_division(one_file: slimfed.RunResult) -> None:
    assert one_file.status == "done"
    assert one_file.figures["test_examples"] == 60
    assert one_file.job.data.test_share == 0.2
    inputs = pinned_inputs(RunFolder(one_file.folder))
    assert inputs is not None
    assert list(inputs.files["data.path"]) == ["requests.csv"]
    assert set(inputs.rows) == {"train", "test"}
    assert "60 of the 300 rows of requests.csv" in (one_file.folder / "logs" / "engine.log").read_text()


def test_a_changed_file_is_not_resumed(one_file: slimfed.RunResult, tmp_path: Path) -> None:
    from slimfed.platform.inputs import changes_of, read_inputs

    file = Path(one_file.job.data.path)
    before = file.read_bytes()
    try:
        file.write_bytes(before + b"turn on the radio,light_on,ann\n")
        assert (
            "requests.csv has other content"
            in changes_of(RunFolder(one_file.folder), one_file.job, read_inputs(one_file.job))[0]
        )
    finally:
        file.write_bytes(before)


def test_round_0_is_the_untuned_model(one_file: slimfed.RunResult) -> None:
    row = row_of(one_file)
    with Store.open("sqlite", one_file.home) as store:
        first, *rest = Reader(store.engine).evaluations(row.id)
    assert (first.round, first.examples, first.test_examples, first.sparsity) == (0, 25, 60, 0.0)
    assert [each.round for each in rest] == [1, 2]
    assert first.accuracy == row.base_accuracy == one_file.figures["base_accuracy"]
    assert 0.0 < row.majority < 0.5
    assert row.accuracy == rest[-1].accuracy
    assert list(one_file.rounds.index) == [1, 2]  # it is no round: it takes no time and no bytes
    assert row.virtual_seconds == pytest.approx(sum(one_file.rounds.virtual_seconds))
    assert "the untuned model" in str(standing(row))
    assert "the most frequent class" in str(standing(row))


def test_a_validation_file_judges_rounds_and_the_test_file_the_end(validated: slimfed.RunResult) -> None:
    row = row_of(validated)
    assert (row.evaluated_on, row.test_examples) == ("validation", 60)
    with Store.open("sqlite", validated.home) as store:
        found = Reader(store.engine).evaluations(row.id)
    assert [each.held_out is not None for each in found] == [False, False, True]
    assert found[-1].held_out["examples"] == 40
    assert found[-1].held_out["accuracy"] == row.held_out_accuracy
    assert validated.job.data.validation == "use"
    printed = CliRunner().invoke(app, ["show", row.id], env={"SLIMFED_HOME": str(validated.home)})
    assert "on the validation file" in printed.output
    assert "test file" in printed.output
    exported = validated.export(validated.home / "slim")
    measured = CliRunner().invoke(app, ["evaluate", str(exported), "--json"])
    assert json.loads(measured.stdout)["accuracy"] == pytest.approx(row.held_out_accuracy)
    card = (exported / "README.md").read_text()
    assert "accuracy of the global model on the validation split" in card
    assert "accuracy of the global model on the test split" in card


def test_a_model_of_one_file_is_evaluated_on_the_rows_that_were_held_out(one_file: slimfed.RunResult) -> None:
    exported = one_file.export(one_file.home / "slim")
    measured = CliRunner().invoke(app, ["evaluate", str(exported), "--json"])
    found = json.loads(measured.stdout)
    assert found["examples"] == 60
    assert found["accuracy"] == pytest.approx(one_file.accuracy)


def test_check_says_what_a_run_would_do_and_leaves_nothing(one_file: slimfed.RunResult, tmp_path: Path) -> None:
    file = one_file.folder / "job.toml"
    environment = {"SLIMFED_HOME": str(tmp_path / "home")}
    printed = CliRunner().invoke(app, ["check", str(file)], env=environment)
    assert printed.exit_code == 0, printed.output
    for words in ("240 training texts, 60 test texts", "jetson-tx2", "yes", "about", "60 of the 300 rows"):
        assert words in printed.output
    found = json.loads(CliRunner().invoke(app, ["check", str(file), "--json"], env=environment).stdout)
    costs = found["estimate"]
    assert sum(each["devices"] for each in costs["classes"]) == 3
    assert costs["virtual_seconds"] == pytest.approx(one_file.figures["virtual_seconds"], rel=0.5)
    sent = one_file.figures["bytes_up"] + one_file.figures["bytes_down"]
    assert costs["bytes"] == pytest.approx(sent, rel=0.3)
    assert not (tmp_path / "home").exists()


def test_check_tells_devices_that_are_too_small(tmp_path: Path, one_file: slimfed.RunResult) -> None:
    small = tmp_path / "small.toml"
    small.write_text(
        '[[class]]\nname = "tiny"\nfp32_gflops = 1\nfp16_gflops = 1\nefficiency = 0.5\nmemory_gib = 0.001\n'
        "bandwidth_gb_s = 1\ndown_mbit_s = 1\nup_mbit_s = 1\nlatency_ms = 1\n"
    )
    file = one_file.folder / "job.toml"
    printed = CliRunner().invoke(app, ["check", str(file), "--set", f"fleet.profile={small}"])
    assert "no: every round is lost for want of memory" in printed.output
    assert f"start it: slimfed run {file} --set fleet.profile={small}" in printed.output


def test_references_are_runs_that_the_run_is_judged_by(one_file: slimfed.RunResult) -> None:
    with Store.open("sqlite", one_file.home) as store:

        def drive(run_id: str, folder: RunFolder, sizing: Sizing) -> Outcome:
            assert store.mark_running(run_id)
            plan = LaunchPlan(run_id, one_file.home, folder.path, sizing)
            compute(plan, StoreJournal(store, run_id, NoDisplay(), began=True))
            return Outcome("done", interrupted=False)

        assert make_references(store, one_file.id, drive) == Outcome("done", interrupted=False)
        assert make_references(store, one_file.id, drive) is None  # they are there
        reader = Reader(store.engine)
        central, local = reader.references(one_file.id)
        assert (central.reference, local.reference) == ("central", "local")
        assert (central.devices, central.rounds_done, central.target_sparsity) == (1, 2, 0.0)
        assert (local.devices, local.rounds_done, local.sparsity) == (3, 1, 0.0)
        steps = reader.find_run(central.id).job["training"]["local_steps"]
        assert steps == 12  # in 2 rounds as many as 3 devices take, 4 each: the middle of 2, 4 and 8
        assert reader.find_run(central.id).job["training"]["learning_rate"] == pytest.approx(5e-3 / 3**0.5)
        stands = standing(reader.find_run(one_file.id), reader.references(one_file.id))
        assert stands.references["local"] == local.device_accuracy_mean
        assert stands.references["central"] == central.accuracy
        assert "central training, unpruned" in str(stands)
    environment = {"SLIMFED_HOME": str(one_file.home)}
    shown = CliRunner().invoke(app, ["show", one_file.id], env=environment).output
    assert "devices alone, unpruned" in shown
    assert central.id in shown
    assert f"for run {one_file.id}" in CliRunner().invoke(app, ["show", central.id], env=environment).output
    told = json.loads(CliRunner().invoke(app, ["show", one_file.id, "--json"], env=environment).stdout)
    assert {each["reference"] for each in told["references"]} == {"local", "central"}


@pytest.mark.parametrize("method", sorted(PRESETS))
@pytest.mark.parametrize("reference", REFERENCES)
def test_every_method_has_references(method: str, reference: Reference) -> None:
    job = slimfed.load_job(set={"method.name": method})
    found = reference_job(job, reference, 8000)
    assert problems_of_run(found) == []
    assert (found.method.target_sparsity, found.seed) == (0.0, job.seed)


@pytest.mark.parametrize("option", [["--queue"], ["--federation", "garden"]])
def test_references_are_made_after_a_simulated_run(option: list[str]) -> None:
    done = CliRunner().invoke(app, ["run", "--references", *option])
    assert done.exit_code == 2
    assert "--references: the runs of reference are simulated after the run" in " ".join(done.output.split())
