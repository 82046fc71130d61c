"""A run in the queue: there at once, checked as a whole when it starts."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from slimfed.clients.errors import InputError
from slimfed.platform.home import RunFolder
from slimfed.platform.inputs import pinned_inputs
from slimfed.platform.job.job import Job, load_job
from slimfed.platform.launch import queueing
from slimfed.platform.launch.preflight import check
from slimfed.platform.launch.quick_check import quick_check, quick_problems
from slimfed.platform.launch.run_creation import complete_run, create_run, is_unchecked, job_of
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store

SETS = ["training.rounds=2", "fleet.devices=4", "engine.workers=1", "engine.cohort_size=2", "engine.dtype=fp32"]


@pytest.fixture
def job() -> Job:
    return load_job(None, SETS)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, str]]:
    """Calls for a queue runner, which nobody answers here."""
    made: list[tuple[Path, str]] = []
    monkeypatch.setattr(queueing, "call_foreman", lambda *given: made.append(given))
    return made


def test_a_queued_run_is_completed_to_what_a_checked_one_is(job: Job, store: Store, tmp_path: Path, calls) -> None:
    run_id, folder = queueing.queue_job(store, tmp_path, "sqlite", job)
    reader = Reader(store.engine)
    assert calls == [(tmp_path, "sqlite")]
    assert reader.find_run(run_id).status == "queued"
    assert is_unchecked(folder)
    assert load_job(folder.job) == job
    checked = check(job)
    complete_run(store, run_id, folder, checked)
    other, elsewhere = create_run(store, tmp_path, checked)
    assert not is_unchecked(folder)
    assert not is_unchecked(elsewhere)
    assert folder.job.read_text() == elsewhere.job.read_text()
    assert pinned_inputs(folder) == pinned_inputs(elsewhere)
    assert reader.find_run(run_id).job == reader.find_run(other).job
    assert [row[1:] for row in reader.devices(run_id)] == [row[1:] for row in reader.devices(other)]
    assert _files(folder) == _files(elsewhere)


def test_what_nobody_gave_is_chosen_for_a_queued_run_too(store: Store, tmp_path: Path, calls) -> None:
    """The queue must not write down defaults as if somebody had given them: they are those of the built-in text."""
    rows = [{"text": f"number {n} is {'even' if n % 2 == 0 else 'odd'}", "label": n % 2} for n in range(200)]
    text = tmp_path / "text"
    text.mkdir()
    for split, part in (("train", rows[:120]), ("validation", rows[120:160]), ("test", rows[160:])):
        (text / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    sets = [f"data.path={text}", "fleet.devices=2", "engine.cohort_size=1", "engine.workers=1", "engine.dtype=fp32"]
    (tmp_path / "job.toml").write_text('name = "own"\n')
    own = load_job(tmp_path / "job.toml", sets)
    run_id, folder = queueing.queue_job(store, tmp_path, "sqlite", own)
    checked = check(job_of(folder))
    assert checked.job == check(own).job
    assert (checked.job.training.learning_rate, checked.job.data.validation) == (5e-3, "use")
    complete_run(store, run_id, folder, checked)
    assert job_of(folder) == checked.job
    assert Reader(store.engine).find_run(run_id).job["training"]["learning_rate"] == 5e-3


def _files(folder: RunFolder) -> list[str]:
    return sorted(str(file.relative_to(folder.path)) for file in folder.path.rglob("*"))


@pytest.mark.parametrize(
    ("sets", "lines"),
    [
        (["fleet.profile=jetson-81"], ["fleet.profile"]),
        (["data.path=./nowhere"], ["data.path"]),
        (["model.path=./nowhere"], ["model.path"]),
        (["model.path=builtin:nothing"], ["model.path"]),
        (["data.path=./nowhere", "model.path=./nowhere"], ["data.path", "model.path"]),
        (["data.label=intention"], ["data.label"]),
    ],
)
def test_what_is_wrong_is_told_by_field_and_leaves_nothing(
    sets: list[str], lines: list[str], store: Store, tmp_path: Path, calls
) -> None:
    with pytest.raises(InputError) as told:
        queueing.queue_job(store, tmp_path / "home", "sqlite", load_job(None, [*SETS, *sets]))
    assert [line.partition(" =")[0].partition(":")[0] for line in str(told.value).splitlines()] == lines
    assert Reader(store.engine).runs() == []
    assert not (tmp_path / "home").exists()
    assert calls == []


def test_text_without_a_training_file_is_wrong_and_large_text_is_only_looked_for(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "data").mkdir()
    job = load_job(None, [*SETS, f"data.path={tmp_path / 'data'}"])
    (line,) = quick_problems(job)
    assert line.startswith("data.path = ")
    (tmp_path / "data" / "train.csv").write_text("words,label\na,b\n")
    (tmp_path / "data" / "test.csv").write_text("words,label\na,b\n")
    assert quick_problems(job) == []
    with pytest.raises(InputError, match="no such column"):
        quick_check(job)
    monkeypatch.setattr("slimfed.platform.launch.quick_check._READ_BYTES", 3)
    quick_check(job)


def test_one_file_and_a_gguf_file_are_looked_for_too(tmp_path: Path) -> None:
    text = tmp_path / "text.csv"
    text.write_text("text,label\n" + "on,0\noff,1\n" * 20)
    given = [*SETS, f"data.path={text}", "data.test_share=0.2"]
    quick_check(load_job(None, given))
    with pytest.raises(InputError, match=r"data\.text = \"words\""):
        quick_check(load_job(None, [*given, "data.text=words"]))
    (tmp_path / "model.gguf").write_bytes(b"none of it")
    assert quick_problems(load_job(None, [*given, f"model.path={tmp_path / 'model.gguf'}"])) == [
        f'model.path = "{tmp_path / "model.gguf"}": is no GGUF file, whatever its name says'
    ]


def test_queueing_needs_no_torch_and_little_time(tmp_path: Path) -> None:
    """The command as a whole; processor time, as other tests may run at the same time, and the least of three tries."""
    code = (
        "import sys\n"
        "import slimfed.platform.launch.queueing as queueing\n"
        "queueing.call_foreman = lambda *given: None\n"
        "from slimfed.platform.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print('HEAVY', [name for name in ('torch', 'transformers', 'ray', 'datasets') if name in sys.modules])"
    )
    took = []
    for _ in range(3):
        began = _of_children()
        done = subprocess.run(
            [sys.executable, "-c", code, "run", "--queue", "--json"],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "SLIMFED_HOME": str(tmp_path / "home")},
        )
        took.append(_of_children() - began)
        assert done.returncode == 0, done.stderr
        printed, _, heavy = done.stdout.rpartition("HEAVY ")
        assert heavy.strip() == "[]"
        assert json.loads(printed)["status"] == "queued"
    assert min(took) < 4, took


def _of_children() -> float:
    """Processor seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
