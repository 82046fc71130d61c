"""A run goes on with what it began with: text, tokenizer, configuration and fleet profile, or by an explicit word."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import slimfed
from slimfed.clients.export.manifest import Manifest
from slimfed.clients.inputs import check_inputs, inputs_digest
from slimfed.clients.models.location import model_folder
from slimfed.clients.spec import ModelSpec
from slimfed.platform.cli import app
from slimfed.platform.fleet import profiles
from slimfed.platform.home import RunFolder, run_folder
from slimfed.platform.inputs import changes_of, pin_inputs, pinned_inputs, read_inputs
from slimfed.platform.launch.queue_runner import cause_in

ROWS = [("turn on the light", "on"), ("switch it off", "off"), ("make it bright", "on"), ("make it dark", "off")]


class Place:
    """A folder with text, model and profile, and a run of them that was stopped after its first round."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home, self.trace = folder, folder / "home", str(folder / "trace.csv")
        Path(self.trace).write_text("device,from,until\n0,0,inf\n1,0,inf\n")
        for split in ("train", "test"):
            self.write_text(split, ROWS * 4)
        source = model_folder(ModelSpec())
        assert source is not None
        shutil.copytree(source, folder / "model")
        shutil.copy(Path(profiles.__file__).parent / "builtin" / "uniform.toml", folder / "mine.toml")

        def stop(_: slimfed.RoundFigures) -> None:
            raise LookupError

        with pytest.raises(LookupError):
            slimfed.run(self.job(), runtime="local", on_round=stop, home=self.home, progress=False)
        (self.run,) = slimfed.open_store(home=self.home).runs.index

    def job(self) -> slimfed.Job:
        return slimfed.load_job(
            {
                "model": {"path": str(self.folder / "model")},
                "data": {"path": str(self.folder / "data"), "max_length": 16},
                "fleet": {"profile": str(self.folder / "mine.toml"), "devices": 2, "availability": self.trace},
                "training": {"rounds": 2, "local_steps": 2, "batch_size": 2},
                "engine": {"name": "cohort", "cohort_size": 1, "dtype": "fp32", "workers": 1},
            }
        )

    def write_text(self, split: str, rows: list[tuple[str, str]]) -> None:
        (self.folder / "data").mkdir(exist_ok=True)
        lines = ["text,label", *(",".join(row) for row in rows)]
        (self.folder / "data" / f"{split}.csv").write_text("\n".join(lines) + "\n")

    def change(self, name: str, **fields: object) -> None:
        """Change fields of a configuration file of the model."""
        file = self.folder / "model" / name
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("place"))


@pytest.fixture
def place(stopped: Place, tmp_path: Path) -> Iterator[Place]:
    """The stopped run; whatever a test does to it is undone."""
    shutil.copytree(stopped.folder, tmp_path / "before")
    yield stopped
    shutil.rmtree(stopped.folder)
    shutil.copytree(tmp_path / "before", stopped.folder)


def other_text(place: Place) -> None:
    place.write_text("train", [("lights please", "on"), *ROWS[1:], *ROWS * 3])


def other_labels(place: Place) -> None:
    for split in ("train", "test"):
        place.write_text(split, [(text, {"off": "out"}.get(label, label)) for text, label in ROWS * 4])


def other_tokenizer(place: Place) -> None:
    file = place.folder / "model" / "tokenizer.json"
    file.write_text(file.read_text().replace('"light"', '"thgil"'))


def other_file_of_text(place: Place) -> None:
    (place.folder / "data" / "test.csv").unlink()
    (place.folder / "data" / "test.jsonl").write_text(
        "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS)
    )


def other_profile(place: Place) -> None:
    with (place.folder / "mine.toml").open("a") as file:
        file.write("\n# changed\n")


def other_trace(place: Place) -> None:
    with Path(place.trace).open("a") as file:
        file.write("1,5,inf\n")


CHANGES: list[tuple[Callable[[Place], None], list[str]]] = [
    (other_text, ["data.path = ", "train.csv has other content (SHA-256 was "]),
    (other_labels, ["data.path = ", 'data.label = \'label\': was ["off", "on"], is ["on", "out"]']),
    (other_file_of_text, ["test.csv is gone", "test.jsonl was not there"]),
    (other_tokenizer, ["model.path = ", "tokenizer.json has other content"]),
    (lambda place: place.change("config.json", hidden_act="relu"), ['config.json: hidden_act was "gelu", is "relu"']),
    (
        lambda place: place.change("config.json", layer_norm_eps=1e-3),
        ["config.json: layer_norm_eps was 1e-12, is 0.001"],
    ),
    (
        lambda place: place.change("config.json", num_attention_heads=2),
        ["config.json: num_attention_heads was 4, is 2"],
    ),
    (
        lambda place: place.change("tokenizer_config.json", do_lower_case=False),
        ["tokenizer_config.json: do_lower_case"],
    ),
    (other_profile, ["fleet.profile = ", "mine.toml has other content"]),
    (other_trace, ["fleet.availability = ", "trace.csv has other content"]),
]


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_a_change_is_refused_by_file_and_field(
    place: Place, change: Callable[[Place], None], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIMFED_HOME", str(place.home))
    monkeypatch.delenv("SLIMFED_STORE", raising=False)
    change(place)
    for more in ([], ["--queue"]):
        result = CliRunner().invoke(app, ["resume", place.run, *more])
        assert result.exit_code == 2, result.output
        said = " ".join(result.stderr.split())
        assert [word for word in words if word not in said] == []
        assert f"slimfed resume {place.run} --accept-changes" in said
    run = slimfed.open_store(home=place.home).run()
    assert (run.status, run.events.empty) == ("stopped", True)


def test_the_queue_tells_every_change_as_the_cause() -> None:
    printed = "error: of an earlier start\nrun x is queued\nerror: a.csv is gone\nerror: put it back\n"
    assert cause_in(printed) == "a.csv is gone; put it back"
    assert cause_in("Traceback\nValueError: x\n\n") == "ValueError: x"
    assert cause_in("\n") == ""


def test_what_has_no_effect_is_no_change(place: Place) -> None:
    file = place.folder / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"transformers_version": "0"}, indent=7))
    (place.folder / "model" / "README.md").write_text("a note")
    (place.folder / "data" / "validation.csv").write_text("text,label\n")
    assert slimfed.resume(place.run, runtime="local", home=place.home, progress=False).status == "done"


def test_an_accepted_change_is_recorded_and_is_what_the_run_has_from_then_on(place: Place) -> None:
    other_text(place)
    other_labels(place)
    done = slimfed.resume(place.run, runtime="local", home=place.home, progress=False, accept_changes=True)
    assert done.status == "done", done.cause
    (event,) = done.events.to_dict("records")
    assert (event["kind"], event["round"]) == ("inputs-changed", 1)
    assert "train.csv has other content" in event["cause"]
    assert 'data.label = \'label\': was ["off", "on"], is ["on", "out"]' in event["cause"]
    pinned = pinned_inputs(run_folder(place.home, place.run))
    assert pinned is not None
    assert pinned.labels == ("on", "out")
    exported = done.export(place.folder / "slim")
    assert Manifest.model_validate_json((Path(exported) / "slimfed.json").read_bytes()).labels == ("on", "out")
    place.change("config.json", hidden_act="relu")
    with pytest.raises(slimfed.InputError, match="hidden_act"):
        done.export(place.folder / "other")


def test_another_number_of_labels_is_never_accepted(place: Place) -> None:
    for split in ("train", "test"):
        place.write_text(split, [*ROWS * 4, ("a third", "dim")])
    with pytest.raises(slimfed.InputError, match="began with 2 labels, the text has 3"):
        slimfed.resume(place.run, runtime="local", home=place.home, progress=False, accept_changes=True)


def test_weights_in_other_files_can_be_accepted_and_other_weights_cannot(place: Place) -> None:
    file = place.folder / "model" / "model.safetensors"
    tensors = load_file(file)
    save_file(dict(reversed(tensors.items())), file, metadata={"format": "pt", "note": "saved again"})
    with pytest.raises(slimfed.InputError, match=r"model\.safetensors has other content"):
        slimfed.resume(place.run, runtime="local", home=place.home, progress=False)
    name = next(name for name in tensors if "attention" in name)
    save_file(tensors | {name: tensors[name] + 1}, place.folder / "model" / "aside", metadata={"format": "pt"})
    saved_again = file.read_bytes()
    (place.folder / "model" / "aside").replace(file)
    with pytest.raises(slimfed.InputError, match=r"its weights are not those that run .* cannot be accepted"):
        slimfed.resume(place.run, runtime="local", home=place.home, progress=False, accept_changes=True)
    file.write_bytes(saved_again)
    done = slimfed.resume(place.run, runtime="local", home=place.home, progress=False, accept_changes=True)
    assert (done.status, list(done.events["kind"])) == ("done", ["inputs-changed"])


def test_a_configuration_that_does_not_fit_what_was_trained_is_never_accepted(place: Place) -> None:
    place.change("config.json", num_attention_heads=2)
    with pytest.raises(slimfed.InputError, match="other numbers of heads or channels than the run began with"):
        slimfed.resume(place.run, runtime="local", home=place.home, progress=False, accept_changes=True)
    assert slimfed.open_store(home=place.home).run().status == "stopped"


def test_empty_rows_that_are_dropped_are_an_event(place: Place) -> None:
    place.write_text("train", [*ROWS * 4, ("", "on"), ("dim it", "")])
    job = slimfed.load_job(place.job(), set={"data.empty": "drop", "training.rounds": 1})
    done = slimfed.run(job, runtime="local", home=place.home, progress=False)
    (event,) = done.events.to_dict("records")
    assert (done.status, event["kind"], event["round"]) == ("done", "rows-dropped", 0)
    assert "2 of 18 rows of train.csv are empty and dropped" in event["cause"]
    assert "line 18 (data.text" in event["cause"]
    log = run_folder(place.home, done.id).logs / "engine.log"
    assert "2 of 18 rows of train.csv are empty and dropped" in log.read_text()


def test_a_damaged_note_is_refused_by_name(place: Place) -> None:
    run_folder(place.home, place.run).inputs.write_text("[")
    with pytest.raises(slimfed.InputError, match=r"inputs\.json' cannot be read"):
        slimfed.resume(place.run, runtime="local", home=place.home, progress=False)


def test_a_new_run_in_the_same_process_reads_the_files_anew(place: Place) -> None:
    """The runtime of a task is kept in the process, by what its files hold."""
    first = slimfed.run(place.job(), runtime="local", home=place.home, progress=False)
    for split in ("train", "test"):
        place.write_text(split, [(text, {"on": "off", "off": "on"}[label]) for text, label in ROWS * 4])
    second = slimfed.run(place.job(), runtime="local", home=place.home, progress=False)
    assert list(first.rounds.train_loss) != list(second.rounds.train_loss)


def test_a_sweep_does_not_mix_runs_of_other_text(place: Place) -> None:
    def sweep() -> int:
        found = slimfed.sweep(place.job(), {"training.rounds": [1]}, name="both", runtime="local", home=place.home)
        return len(found.runs)

    assert sweep() == sweep() == 1
    other_text(place)
    with pytest.raises(slimfed.InputError, match=r"(?s)train\.csv has other content.*sweep 'both' began with other"):
        sweep()


def test_a_worker_that_starts_after_a_change_reads_nothing(place: Place) -> None:
    task = place.job().task_spec()
    pinned = task.model_copy(update={"inputs": inputs_digest(task)})
    check_inputs(pinned)
    other_text(place)
    check_inputs(task)
    with pytest.raises(slimfed.InputError, match="not those that the run began with"):
        check_inputs(pinned)


def test_a_model_of_a_hub_that_is_not_in_the_cache_yet_is_no_change(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The server, and workers on other machines, load it when they need it; its revision is what is compared."""
    job = place.job()
    spec = job.model.model_copy(update={"path": "somebody/some-model", "revision": "main"})
    job = job.model_copy(update={"model": spec})
    cached = read_inputs(place.job())
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    folder = RunFolder(tmp_path)
    pin_inputs(folder, cached)
    missing = read_inputs(job)
    assert missing.files["model.path"] == {}
    assert changes_of(folder, job, missing) == []
    assert cached.of_devices(spec) == missing.of_devices(spec)
    other = spec.model_copy(update={"revision": "v2"})
    assert cached.of_devices(spec) != cached.of_devices(other)
