"""``import slimfed``: what it offers, and that it does what the command line does."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import slimfed

SMALL: dict[str, Any] = {
    "name": "small",
    "seed": 3,
    "fleet": {"devices": 4},
    "bandit": {"ranks": [2, 4]},
    "training": {"rounds": 3, "local_steps": 2},
    "engine": {"workers": 1, "cohort_size": 2, "dtype": "fp32"},
    "evaluation": {"device_examples": 40},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def told() -> list[slimfed.RoundFigures]:
    return []


@pytest.fixture(scope="module")
def local(home: Path, told: list[slimfed.RoundFigures]) -> slimfed.RunResult:
    threads = torch.get_num_threads()
    result = slimfed.run(SMALL, runtime="local", on_round=told.append, home=home)
    assert torch.get_num_threads() == threads
    return result


def test_every_public_name_is_there() -> None:
    assert all(getattr(slimfed, name) is not None for name in slimfed.__all__)
    assert set(slimfed.__all__) <= set(dir(slimfed))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        slimfed.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_importing_it_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "datasets", "flwr", "ray", "pandas")
    code = f"import slimfed, sys; slimfed.load_job(); print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_job_comes_from_tables_a_file_or_a_job_and_fields_are_overruled(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text('name = "from file"\n[training]\nrounds = 4\n', encoding="utf-8")
    for settings in ({"training.rounds": 5, "data.partition": {"kind": "iid"}}, ["training.rounds=5", "name=x"]):
        assert slimfed.load_job(file, set=settings).training.rounds == 5
    job = slimfed.load_job(file)
    assert (job.name, job.training.rounds) == ("from file", 4)
    assert slimfed.load_job(job) is job
    assert slimfed.load_job(job, set={"seed": 9}).seed == 9
    assert slimfed.load_job({"training": {"rounds": 4}}, set={"training.local_steps": 3}).training.rounds == 4


@pytest.mark.parametrize(
    ("source", "settings", "said"),
    [
        ({"training": {"rounds": 0}}, (), "training.rounds = 0"),
        ("missing.toml", (), "there is no such file"),
        (None, "training.rounds=5", "must be a mapping of fields"),
        (None, ["training.rounds"], "must read field=value"),
        (None, {5: 1}, "5 is no field"),
    ],
)
def test_a_job_that_cannot_be_is_refused(source: Any, settings: Any, said: str) -> None:
    with pytest.raises(slimfed.InputError, match=said):
        slimfed.load_job(source, set=settings)


def test_a_method_lays_its_preset_under_what_is_given_and_cannot_be_changed_afterwards() -> None:
    assert slimfed.load_job(None, set={"method.name": "hetlora"}).method.name == "hetlora"
    with pytest.raises(slimfed.InputError, match=r"method.name"):
        slimfed.load_job(slimfed.load_job(), set={"method.name": "hetlora"})


def test_a_local_run_has_figures_rounds_and_events(
    local: slimfed.RunResult, told: list[slimfed.RoundFigures], home: Path
) -> None:
    assert (local.status, local.cause, local.home) == ("done", None, home)
    assert [figures.round for figures in told] == [1, 2, 3]
    assert [figures.accuracy for figures in told] == list(local.rounds.accuracy)
    assert local.accuracy == told[-1].accuracy
    assert local.figures["devices"] == local.job.fleet.devices == 4
    assert (len(local.devices()), len(local.devices(round=2))) == (12, 4)
    assert local.events.empty
    assert "accuracy" in str(local)
    assert "<table>" in local._repr_html_()


def test_flower_s_runtime_gives_the_same_to_the_bit(local: slimfed.RunResult, home: Path) -> None:
    flower = slimfed.run(SMALL, home=home, progress=False)
    assert flower.status == "done", flower.cause
    columns = ["accuracy", "loss", "train_loss", "sparsity", "virtual_seconds", "bytes_up"]
    assert flower.rounds[columns].equals(local.rounds[columns])
    assert flower.devices()[["loss_after", "reward"]].equals(local.devices()[["loss_after", "reward"]])
    both = slimfed.compare(local, flower)
    assert list(both.groups.runs) == [2]
    assert both.verdict is None
    assert both.to_dict()["groups"][0]["final"]["values"] == [local.accuracy] * 2


def test_a_callback_that_raises_stops_the_run_which_resume_finishes(local: slimfed.RunResult, home: Path) -> None:
    def stop_after_two(figures: slimfed.RoundFigures) -> None:
        if figures.round == 2:
            raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        slimfed.run(SMALL, set={"seed": 4}, runtime="local", on_round=stop_after_two, home=home, progress=False)
    stopped = slimfed.open_store(home=home).run()
    assert (stopped.status, stopped.figures["rounds"]) == ("stopped", 2)
    told: list[int] = []
    done = slimfed.resume(stopped, runtime="local", on_round=lambda each: told.append(each.round), progress=False)
    assert (done.id, done.status, told) == (stopped.id, "done", [3])
    assert slimfed.resume(done, runtime="local").figures == done.figures
    whole = slimfed.run(SMALL, set={"seed": 4}, runtime="local", home=home, progress=False)
    assert whole.rounds[["accuracy", "train_loss"]].equals(done.rounds[["accuracy", "train_loss"]])


def test_a_run_that_fails_says_why_and_raises_nothing(home: Path) -> None:
    failed = slimfed.run(SMALL, set={"deadlines.message_mb": 0.001}, runtime="local", home=home, progress=False)
    assert failed.status == "failed"
    assert "updates were usable" in str(failed.cause)


def test_an_interrupt_stops_the_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from slimfed.platform.server.recorder import StoreRecorder

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(StoreRecorder, "stop_requested", interrupt)
    with pytest.raises(KeyboardInterrupt):
        slimfed.run(SMALL, set={"seed": 5}, runtime="local", home=home, progress=False)
    stopped = slimfed.open_store(home=home).run()
    assert (stopped.status, stopped.cause) == ("stopped", "interrupted")


def test_models_come_out_in_memory_and_as_folders(local: slimfed.RunResult, tmp_path: Path) -> None:
    folder = local.export(tmp_path / "slim", dtype="fp32")
    opened = slimfed.load_slim(folder)
    here, of_device = local.model(), local.model(device=0)
    state = opened.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in here.model.state_dict().items())
    assert sum(p.numel() for p in of_device.model.parameters()) > 0
    with pytest.raises(slimfed.InputError, match="exists already"):
        local.export(tmp_path / "slim")
    with pytest.raises(slimfed.InputError, match="format = 'zip'"):
        local.export(tmp_path / "other", format="zip")
    with pytest.raises(slimfed.InputError, match="devices 0 to 3"):
        local.model(device=4)


def test_the_store_lists_the_runs(local: slimfed.RunResult, home: Path) -> None:
    store = slimfed.open_store(home=home)
    assert local.id in store.runs.index
    assert store.runs.loc[local.id, "accuracy"] == local.accuracy
    assert store.run(local.id).figures == local.figures
    with pytest.raises(slimfed.InputError, match="there is no such run"):
        store.run("nowhere")


def test_an_empty_store_has_no_runs(tmp_path: Path) -> None:
    assert slimfed.open_store(home=tmp_path).runs.empty


def test_a_sweep_runs_every_combination_and_knows_those_that_are_done(home: Path) -> None:
    sets = {"training.rounds": 1, "fleet.devices": 2, "engine.workers": 1}
    values = {"method.target_sparsity": [0.2, 0.4]}
    swept = slimfed.sweep(SMALL, values, set=sets, name="two", runtime="local", home=home)
    assert len(swept.runs) == len(swept.groups) == 2
    assert swept.verdict is not None
    assert "leads" in swept.verdict
    assert {run.job.method.target_sparsity for run in swept.runs} == {0.2, 0.4}
    again = slimfed.sweep(SMALL, values, set=sets, name="two", home=home)  # whichever runtime: none is left to run
    assert [run.id for run in again.runs] == [run.id for run in swept.runs]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: slimfed.run(SMALL, runtime="nowhere"), "runtime = 'nowhere': must be one of flower, local"),  # type: ignore[arg-type]
        (lambda: slimfed.compare(metric="taste"), "metric = 'taste'"),
        (lambda: slimfed.sweep(SMALL, {"seed": [1, 2]}, seeds=2), "seeds: values of seed are given already"),
        (lambda: slimfed.sweep(SMALL, {"training.rounds": []}), "no combination"),
        (lambda: slimfed.sweep(SMALL, runtime="local", parallel=2), "parallel = 2: runtime = 'local'"),
        (lambda: slimfed.sweep(SMALL, runtime="nowhere"), "runtime = 'nowhere'"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_is_refused_at_once(call: Any, said: str) -> None:
    with pytest.raises(slimfed.InputError, match=said):
        call()
