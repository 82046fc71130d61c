"""The benchmarks' tables: what cannot be compared honestly is refused, and says of itself how it was measured."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from slimfed.platform.job.job import load_job

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def report() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        return importlib.import_module("cpu_round_report")


@pytest.fixture(scope="module")
def calling() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        return importlib.import_module("calling")


def test_every_script_can_be_imported() -> None:
    code = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
    # The peer reads its settings when it is imported, as Flower imports it.
    scripts = sorted(file.stem for file in FOLDER.glob("*.py") if file.stem != "flower_peft")
    done = subprocess.run(
        [sys.executable, "-c", code, *scripts], cwd=FOLDER, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


def measured(**changes: Any) -> dict[str, Any]:
    seen = {
        "date": "2026-01-02T03:04:05+00:00",
        "versions": {"slimfed": "1.2", "torch": "3.4"},
        "python": "3.12.3",
        "processor": "a processor",
        "cores": 2,
        "instruction_sets": ["amx_bf16", "avx2"],
        "gpus": [],
    }
    entry = {
        "machine": seen,
        "load": [0.25, 1.5],
        "devices": 80,
        "peer_devices": 80,
        "slimfed": [{"seconds": [9.0, 2.0], "engine": ["engine.dtype = bf16"]}],
        "peer": [{"seconds": [50.0, 10.0, 12.0]}],
    }
    return entry | changes


def test_the_first_round_of_every_side_is_left_out(report: ModuleType) -> None:
    text = report.table({"models": {report.TINY: measured()}})
    assert f"| {report.TINY} | 11.0 | **2.00** | **5.5** | 8 |" in text
    assert "pfl-research" not in text


@pytest.mark.parametrize(
    ("side", "run"),
    [
        ("peer", {"seconds": [98.8]}),
        ("slimfed", {"seconds": [29.2], "engine": []}),
        ("pfl", {"rounds": 1, "first_round_s": 9.0, "s_per_round": 9.0}),
    ],
)
def test_a_run_of_one_round_is_refused(report: ModuleType, side: str, run: dict[str, Any]) -> None:
    with pytest.raises(report.ReportError, match=rf"^{report.MINILM}: a run of .* has 1 round"):
        report.table({"models": {report.TINY: measured(), report.MINILM: measured(**{side: [run]})}})


def test_reduced_peers_are_scaled_and_named(report: ModuleType) -> None:
    text = report.table({"models": {report.TINY: measured(peer_devices=8)}})
    assert "| 110.0 |" in text
    assert "Only 8 of the 80 devices of the peers were run; their seconds were scaled by 10." in text


def test_the_third_side_has_columns_where_it_was_measured(report: ModuleType) -> None:
    third = measured(pfl=[{"rounds": 3, "first_round_s": 30.0, "s_per_round": 20.0}], pfl_versions={"pfl": "0.6.0"})
    text = report.table({"models": {report.TINY: third, report.MINILM: measured()}})
    assert "| 20.0 | **10.0** | 8 |" in text
    assert "pfl-research ran with pfl 0.6.0." in text
    assert "| not measured |" in text


def test_the_footnote_says_on_what_it_was_measured(report: ModuleType) -> None:
    text = report.table({"models": {report.TINY: measured()}})
    assert (
        "2026-01-02, a processor, 2 cores (avx2, amx_bf16); load average before each turn 0.2, 1.5; "
        "Python 3.12.3, slimfed 1.2, torch 3.4." in text
    )


def test_the_kept_results_are_as_the_script_writes_them(report: ModuleType) -> None:
    kept = json.loads((FOLDER / "results" / "cpu-round.json").read_text(encoding="utf-8"))
    for entry in kept["models"].values():
        assert {"machine", "load", "devices", "peer_devices", "slimfed", "peer"} <= set(entry)


def test_a_call_that_takes_too_long_is_named_and_ended(calling: ModuleType) -> None:
    with pytest.raises(calling.CallError, match=r"^the slow one: not done after 0\.2 s"):
        calling.call("the slow one", [sys.executable, "-c", "import time; time.sleep(60)"], {}, 0.2)


def test_a_call_that_fails_says_why(calling: ModuleType) -> None:
    with pytest.raises(calling.CallError, match=r"^the bad one: failed with exit code 1\.(.|\n)*because"):
        calling.call("the bad one", [sys.executable, "-c", "raise SystemExit('because')"], {}, 60.0)


@pytest.fixture(scope="module")
def criteria() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        return importlib.import_module("criteria_table")


def test_criteria_are_listed_by_what_they_differ_in(criteria: ModuleType) -> None:
    one = {"model": "m", "text": "trec", "variant": "fisher-global", "sparsity": 0.5, "reached": 0.499, "sets": []}
    runs = [one | {"seed": seed, "accuracy": accuracy, "loss": 1.0} for seed, accuracy in ((2, 0.9), (1, 0.8))]
    runs.append(one | {"text": "e2e", "seed": 1, "accuracy": 0.5, "loss": 2.5, "sets": ["training.rounds=3"]})
    assert criteria.table(runs).splitlines()[2:] == [
        "| m | e2e | 49.9% | fisher-global | training.rounds=3 | 2.500 nats a token | 1 |",
        "| m | trec | 49.9% | fisher-global |  | 85.0 ± 7.1% | 1, 2 |",
    ]


def test_every_criterion_of_the_table_makes_a_job(criteria: ModuleType) -> None:
    for variant in criteria.VARIANTS:
        cell = {"variant": variant, "path": "p", "data": "d", "seed": 3, "text": "trec", "sparsity": 0.5, "sets": []}
        job = load_job(FOLDER / "minilm.toml", criteria.fields(cell))
        assert job.bandit.name == "fixed"
        assert job.bandit.local_steps == ()
        assert variant in ("dense", f"{job.method.importance}-{job.pruning.scope}")


def test_runs_that_a_results_file_has_are_not_made_again(criteria: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    cell = {"model": "m", "text": "t", "variant": "dense", "sparsity": 0.0, "seed": 1, "sets": []}
    out.write_text(json.dumps([cell | {"wall": 1.0}]))
    finish = importlib.import_module("side_by_side").finish
    finish([cell, cell | {"seed": 2}], dict, criteria.key, out, seconds=0.0)  # nothing starts after 0 s
    assert [run["seed"] for run in json.loads(out.read_text())] == [1]
