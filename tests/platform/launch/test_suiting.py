"""Values for foreign text where nobody gave any; and a job of a sweep has the same as a single run."""

import json
from pathlib import Path
from typing import Any

import pytest

from slimfed.platform.api.jobs import load_job
from slimfed.platform.job.job import Job, job_to_toml, parse_job
from slimfed.platform.job.job import load_job as load_file
from slimfed.platform.launch.preflight import check
from slimfed.platform.launch.suiting import model_width, stranger, suit, suited
from slimfed.platform.sweep import expand_jobs


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("text") / "rows.jsonl"
    rows = [{"text": f"number {n} is {'even' if n % 2 == 0 else 'odd'}", "label": n % 2} for n in range(200)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def job(foreign: str, **more: Any) -> Job:
    return parse_job({"data": {"path": foreign}, "fleet": {"devices": 2}, "engine": {"cohort_size": 1}} | more)


def test_the_built_in_text_keeps_its_defaults() -> None:
    built_in = parse_job({})
    assert suit(built_in, 10**6) == (built_in, ())
    assert suited(built_in) == built_in


@pytest.mark.parametrize(
    ("devices", "rows", "rounds"), [(80, 5_000, 20), (80, 128_000, 30), (10, 128_000, 100), (2, 100, 20)]
)
def test_rounds_go_over_the_text_a_few_times(foreign: str, devices: int, rows: int, rounds: int) -> None:
    found, lines = suit(job(foreign, fleet={"devices": devices}), rows)
    assert found.training.rounds == rounds
    assert lines[0].startswith(f"training.rounds = {rounds}: not given; ")
    assert f"{rows:,} training texts" in lines[0]
    assert found.pruning.until * rounds == pytest.approx(6, abs=0.5)


def test_the_rate_falls_with_the_width(foreign: str, tmp_path: Path) -> None:
    rates = {}
    for name, width in (("hidden_size", 128), ("hidden_size", 384), ("n_embd", 768), ("dim", 4096)):
        (tmp_path / "config.json").write_text(json.dumps({name: width}))
        found, lines = suit(job(foreign, model={"path": str(tmp_path)}), 100)
        rates[width] = found.training.learning_rate
        assert f"for a model {width} wide" in lines[1]
    assert rates == {128: 5e-3, 384: 3e-3, 768: 2e-3, 4096: 9e-4}
    (tmp_path / "config.json").unlink()
    nothing = job(foreign, model={"path": str(tmp_path)})
    assert model_width(nothing.model) is None
    assert suit(nothing, 100)[0].training.learning_rate == 2e-3


def test_what_is_given_stays(foreign: str) -> None:
    given = job(foreign, training={"rounds": 7, "learning_rate": 1e-4}, pruning={"until": 0.9})
    assert suit(given, 100) == (given, ())
    assert suit(job(foreign, method={"target_sparsity": 0.0}), 100)[0].pruning.until == 0.6


def test_a_run_a_sweep_and_a_resumed_run_have_the_same_values(foreign: str, tmp_path: Path) -> None:
    checked = check(job(foreign))
    assert (checked.job.training.rounds, checked.job.training.learning_rate) == (20, 5e-3)
    said = "\n".join(checked.reasons)
    for words in ("training.rounds = 20", "training.learning_rate = 0.005", "pruning.until = 0.3", "household talk"):
        assert words in said
    (variant,) = expand_jobs(lambda _chosen: job(foreign), {}, 1, "sweep").variants
    assert suited(variant.job).training == checked.job.training
    assert suited(load_job(job(foreign), set={"seed": 5})).training == checked.job.training
    file = tmp_path / "job.toml"
    file.write_text(job_to_toml(checked.job))
    assert suit(load_file(file), 10**6) == (load_file(file), ())


def test_a_built_in_model_says_what_it_knows(foreign: str) -> None:
    assert "small model that knows household talk only" in stranger(job(foreign))[0]
    assert stranger(parse_job({})) == ()
    assert stranger(job(foreign, model={"path": "./mine"})) == ()
