"""``compare`` and ``sweep`` over real stores whose runs are done already."""

import json
from pathlib import Path

import pytest
from round_records import device_record, round_record
from typer.testing import CliRunner

from slimfed.clients.update import Evaluation
from slimfed.platform.cli import app
from slimfed.platform.job.job import job_to_dict, load_job
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store
from slimfed.platform.sweep import expand

runner = CliRunner()

JOB = 'name = "small"\nseed = 4\n[fleet]\ndevices = 4\n[training]\nrounds = 3\nlocal_steps = 2\n'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "home"
    monkeypatch.setenv("SLIMFED_HOME", str(place))
    monkeypatch.delenv("SLIMFED_STORE", raising=False)
    (tmp_path / "job.toml").write_text(JOB)
    return place


def _record(home: Path, run_id: str, qualities: list[float], sweep: str | None = None, *sets: str) -> None:
    """A finished run of the small job."""
    with Store.open("sqlite", home) as store:
        store.create_run(run_id, job_to_dict(load_job(home.parent / "job.toml", sets)), home / run_id, sweep)
        for number, quality in enumerate(qualities, 1):
            measured = Evaluation(0.5, quality, 10, macro_f1=quality / 2)
            record = round_record(number, (device_record(0, number),), evaluation=measured, joules=2000.0)
            store.record_round(run_id, record)
        store.finish(run_id, "done")


def _three(home: Path) -> None:
    _record(home, "a-1", [0.5, 0.7, 0.9])
    _record(home, "a-2", [0.5, 0.9, 0.95], None, "seed=5")
    _record(home, "b-1", [0.3, 0.4, 0.5], None, "method.target_sparsity=0.3")


def test_a_comparison_in_a_terminal(home: Path) -> None:
    _three(home)
    result = runner.invoke(app, ["compare", "a-1", "a-2", "b-1", "--target", "0.9", "--budget-seconds", "20"])
    assert result.exit_code == 0, result.output
    assert "Cost to accuracy 90.0% (as given)" in result.stdout
    assert "target_sparsity=0.3" in result.stdout
    assert "2 of 2" in result.stdout
    assert "0 of 1" in result.stdout
    assert "not reached" in result.stdout
    assert "25.0 s ± 7.1 s" in result.stdout
    assert "80.0% ± 14.1%" in result.stdout, "after two rounds, 20 virtual seconds"
    assert "unlike seeds" in result.stdout


def test_a_comparison_as_json_is_alone_on_standard_output(home: Path) -> None:
    _three(home)
    shown = json.loads(runner.invoke(app, ["compare", "a-1", "b-1", "--reference", "b-1", "--json"]).stdout)
    assert shown["target"]["value"] == pytest.approx(0.45)
    assert "run b-1" in shown["target"]["origin"]
    first, second = shown["groups"]
    assert first["runs"] == ["a-1"]
    assert first["cost_to_target"]["virtual_seconds"]["mean"] == 10.0
    assert second["cost_to_target"]["joules"]["mean"] == pytest.approx(5000.0)
    assert second["slower_than_fastest"] == pytest.approx(2.5)
    assert second["differences"] == {"method.target_sparsity": 0.3}


def test_controls_are_shown_and_regret_if_it_is_asked_for(home: Path) -> None:
    _record(home, "a-1", [0.5, 0.7, 0.9])
    _record(home, "c-1", [0.5, 0.9, 0.9], None, "bandit.control=shuffled")
    _record(home, "f-1", [0.9, 0.9, 0.9], None, "bandit.name=fixed", "bandit.ranks=[4]")
    plain = runner.invoke(app, ["compare", "a-1", "c-1", "--target", "0.9"])
    assert plain.exit_code == 0, plain.output
    assert "Controls: time to the target" in plain.stdout
    assert "4: 0.67x" in plain.stdout, "20 of 30 virtual seconds"
    assert "Regret" not in plain.stdout
    asked = runner.invoke(app, ["compare", "a-1", "c-1", "f-1", "--target", "0.9", "--regret"])
    assert "Regret: time to the target" in asked.stdout
    assert "4: 3.00x" in asked.stdout
    refused = runner.invoke(app, ["compare", "a-1", "c-1", "--regret"])
    assert refused.exit_code == 2
    assert "--regret: needs runs of an agent, and of fixed choices" in refused.output


def test_another_quality_can_be_compared(home: Path) -> None:
    _three(home)
    shown = json.loads(runner.invoke(app, ["compare", "a-1", "--metric", "macro_f1", "--json"]).stdout)
    assert shown["groups"][0]["final"]["mean"] == pytest.approx(0.45)


def test_robustness_is_shown_where_a_disturbed_twin_is_there(home: Path) -> None:
    _record(home, "calm", [0.5, 0.8, 0.9])
    _record(home, "lossy", [0.5, 0.6, 0.8], None, "fleet.dropout=0.3")
    _record(home, "slow", [0.5, 0.6, 0.9], None, "disturbance.stragglers=0.2")
    result = runner.invoke(app, ["compare", "calm", "lossy", "slow", "--target", "0.7"])
    assert result.exit_code == 0, result.output
    assert "Robustness" in result.stdout
    assert "dropout=0.3" in result.stdout
    assert "stragglers=0.2" in result.stdout
    assert "-10.0" in result.stdout


@pytest.mark.parametrize("ending", [".svg", ".png", ".pdf", ".html"])
def test_a_chart_is_a_file_of_its_kind_and_the_same_each_time(home: Path, tmp_path: Path, ending: str) -> None:
    _three(home)
    files = [tmp_path / f"chart-{number}{ending}" for number in (1, 2)]
    for file in files:
        result = runner.invoke(app, ["compare", "a-1", "b-1", "--chart", str(file)])
        assert result.exit_code == 0, result.output
    content = files[0].read_bytes()
    begin = {".svg": b"<?xml", ".png": b"\x89PNG", ".pdf": b"%PDF", ".html": b"<!doctype html>"}[ending]
    assert content.startswith(begin)
    if ending in (".svg", ".html"):
        assert content == files[1].read_bytes()
        assert b"virtual seconds" in content


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare"], ["name runs"]),
        (["compare", "nonsense"], ["slimfed runs"]),
        (["compare", "a-1", "--metric", "luck"], ["--metric", "macro_f1"]),
        (["compare", "a-1", "--chart", "x.gif"], ["x.gif", ".svg"]),
        (["compare", "a-1", "--chart", "/no/such/folder/x.svg"], ["no folder"]),
        (["compare", "a-1", "--sweep", "none"], ["none", "no run belongs"]),
        (["compare", "a-1", "--target", "0.5", "--reference", "b-1"], ["one of the two"]),
        (["compare", "a-1", "no-such.toml"], ["no-such.toml", "no such file"]),
    ],
)
def test_bad_input_is_told_in_one_line(home: Path, arguments: list[str], words: list[str]) -> None:
    _three(home)
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert all(word in line for word in words), line


def test_every_combination_is_checked_before_the_first_one_starts(home: Path) -> None:
    """Two fields that are wrong only once model and data are open."""
    sets = ["--set", "model.path=builtin:tiny-encoder,builtin:huge", "--set", "bandit.ranks=[2],[512]"]
    result = runner.invoke(app, ["sweep", str(home.parent / "job.toml"), *sets])
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 3, "one for each combination but the good one"
    assert not home.exists()


def test_a_finished_sweep_is_only_compared(home: Path) -> None:
    job = home.parent / "job.toml"
    sets = ["method.target_sparsity=0.3,0.5"]
    for number, variant in enumerate(expand(job, sets, 2).variants):
        fields = [f"seed={variant.job.seed}", f"method.target_sparsity={variant.job.method.target_sparsity}"]
        _record(home, f"run-{number}", [0.4, 0.6 + number / 10], "small", *fields)
    command = ["sweep", str(job), "--set", sets[0], "--seeds", "2", "--json"]
    result = runner.invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "4 done already, 0 to go on with, 0 to start" in result.stderr
    groups = json.loads(result.stdout)["groups"]
    assert [group["runs"] for group in groups] == [["run-0", "run-1"], ["run-2", "run-3"]]
    by_name = json.loads(runner.invoke(app, ["compare", "--sweep", "small", "--json"]).stdout)
    assert by_name["groups"] == groups
    with Store.open("sqlite", home) as store:
        assert len(Reader(store.engine).runs()) == 4


def test_a_job_file_stands_for_its_finished_runs(home: Path) -> None:
    _record(home, "a-1", [0.5, 0.9])
    result = runner.invoke(app, ["compare", str(home.parent / "job.toml"), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["groups"][0]["runs"] == ["a-1"]
