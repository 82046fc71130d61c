"""The report of a run, from the command line: whole, escaped, and written completely or not at all."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from round_records import device_record, round_record
from typer.testing import CliRunner

from slimfed.platform.cli import app
from slimfed.platform.job.job import job_to_dict, load_job
from slimfed.platform.report.content import gather
from slimfed.platform.report.page import page
from slimfed.platform.store.dashboard_reader import Insight
from slimfed.platform.store.writer import Store


@pytest.fixture
def store(tmp_path: Path):
    with Store.open("sqlite", tmp_path) as opened:
        yield opened


def a_run(store: Store, run_id: str, seed: int = 7, name: str = "demo") -> str:
    job = load_job(None, [f"seed={seed}", f"name={name!r}", "fleet.devices=2", "training.rounds=1"])
    store.create_run(run_id, job_to_dict(job), Path("runs") / run_id)
    store.set_devices(run_id, [(0, "jetson-tx2", 40), (1, "jetson-xavier-nx", 60)])
    store.mark_running(run_id)
    store.record_round(run_id, round_record(1, devices=(device_record(0), device_record(1))))
    store.finish(run_id, "done")
    return run_id


def written(store: Store, run_id: str) -> str:
    return page(gather(Insight(store.engine), run_id))


def test_everything_that_somebody_needs_is_there(store: Store) -> None:
    told = written(store, a_run(store, "one"))
    for words in ("Accuracy", "prunable parameters removed", "jetson-tx2", "100 on 2 devices", "seed 7", "fisher"):
        assert words in told
    assert "One seed: how much the figures vary" in told
    assert "name = &quot;demo&quot;" in told


def test_what_slimfed_chose_is_told_from_what_the_job_gave(store: Store) -> None:
    reasons = ("training.rounds = 1: not given; suits the text", "fleet.devices = 2: asked for")
    told = page(replace(gather(Insight(store.engine), a_run(store, "one")), reasons=reasons))
    rows = dict(re.findall(r"<tr><td[^>]*>([a-z_.]+)</td><td[^>]*>[^<]*</td><td[^>]*>([a-z ]+)</td></tr>", told))
    assert rows["training.rounds"] == "slimfed"
    assert rows["fleet.devices"] == "the job"


def test_other_seeds_of_the_job_are_summed_up(store: Store) -> None:
    a_run(store, "one", seed=1)
    a_run(store, "two", seed=2)
    told = written(store, a_run(store, "three", seed=3))
    assert re.search(r"over 3 seeds \(3, [12], [12]\): mean", told)


def test_no_script_and_nothing_that_is_fetched(store: Store) -> None:
    told = written(store, a_run(store, "one", name="<script>alert(1)</script>"))
    assert "<script" not in told
    assert "&lt;script&gt;" in told
    assert not re.search(r"(src|href)=[\"'](?!#)", told)
    assert "@import" not in told
    assert "url(http" not in told


def test_the_command_writes_a_file_and_never_over_another(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIMFED_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    a_run(store, "one")
    done = CliRunner().invoke(app, ["report", "last"])
    assert (done.exit_code, done.stdout.strip()) == (0, "report-one.html")
    before = Path("report-one.html").read_text()
    again = CliRunner().invoke(app, ["report", "one"])
    assert again.exit_code == 2
    assert "--force" in again.stderr
    assert Path("report-one.html").read_text() == before
    assert CliRunner().invoke(app, ["report", "one", "--force"]).exit_code == 0
    nowhere = CliRunner().invoke(app, ["report", "one", "--out", "nowhere/x.html"])
    assert nowhere.exit_code == 2
    assert "cannot be written" in nowhere.stderr
    assert CliRunner().invoke(app, ["report", "none"]).exit_code == 2
