"""A search's trials, with real runs of the runtime "local": what is chosen, ended early, and found again."""

import json
from pathlib import Path

import pytest

import slimfed
from slimfed.clients.builtin.commands import commands
from slimfed.platform.search.result import ENDED_EARLY, SearchResult
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store

JOB = """
name = "tiny"
seed = 3
[data]
path = "./data"
max_length = 16
[fleet]
devices = 2
[method]
target_sparsity = 0.0
[training]
rounds = 3
local_steps = 4
batch_size = 8
learning_rate = 0.01
[evaluation]
devices = 0
[engine]
name = "cohort"
dtype = "fp32"
cohort_size = 2
"""
TRIALS = 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    (folder / "job.toml").write_text(JOB)
    (folder / "data").mkdir()
    for split, rows in zip(("train", "test"), commands(), strict=True):
        lines = [json.dumps({"text": row.text, "label": row.label}) for row in rows[:80]]
        (folder / "data" / f"{split}.jsonl").write_text("\n".join(lines))
    return folder


def searched(folder: Path, trials: int = TRIALS) -> SearchResult:
    choose = ["training.learning_rate=log:1e-7..3e-2"]
    return slimfed.search(folder / "job.toml", choose, trials=trials, runtime="local", home=folder / "runs")


@pytest.fixture(scope="module")
def found(folder: Path) -> SearchResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SLIMFED_STORE", raising=False)
        return searched(folder)


def test_the_job_as_it_is_comes_first_and_the_best_is_the_best_of_the_done(
    found: SearchResult,
) -> None:
    assert found.code == 0
    assert len(found.trials) == TRIALS
    own = found.trials[0]
    assert own.own
    assert found.own is own
    assert own.chosen == {"training.learning_rate": "0.01"}
    done = [trial for trial in found.trials if trial.state == "done"]
    assert found.best is not None
    assert found.best.quality == max(trial.quality or 0.0 for trial in done) >= (own.quality or 0.0)
    assert not found.validation


def test_runs_behind_the_median_are_ended_and_can_be_told(folder: Path, found: SearchResult) -> None:
    early = [trial for trial in found.trials if trial.state == ENDED_EARLY]
    assert early
    assert all(0 < trial.rounds < 3 for trial in early)
    with Store.open("sqlite", folder / "runs") as store:
        runs = {trial.number: Reader(store.engine).find_run(trial.run_id or "") for trial in found.trials}
    for trial in found.trials:
        run = runs[trial.number]
        assert run.status == ("stopped" if trial.state == ENDED_EARLY else "done")
        assert (ENDED_EARLY in (run.tags or [])) == (trial.state == ENDED_EARLY)
        assert run.rounds_done == trial.rounds


def test_the_same_command_finds_its_runs_and_a_longer_one_goes_on(folder: Path, found: SearchResult) -> None:
    with Store.open("sqlite", folder / "runs") as store:
        before = len(Reader(store.engine).runs(limit=None))
    assert searched(folder).trials == found.trials
    with Store.open("sqlite", folder / "runs") as store:
        assert len(Reader(store.engine).runs(limit=None)) == before
    longer = searched(folder, TRIALS + 1)
    assert longer.trials[:TRIALS] == found.trials
    assert len(longer.trials) == TRIALS + 1
