"""`slimfed init` by questions and by options: both write a job file that can be checked as it is."""

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from slimfed.clients.builtin.commands import commands
from slimfed.platform.cli import app
from slimfed.platform.job.job import Job, load_job

ROWS = [{"request": row.text, "intent": row.label, "speaker": row.user} for row in commands()[0][:400]]


def csv_file(folder: Path, delimiter: str = ",") -> Path:
    file = folder / "requests.csv"
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(ROWS[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)
    return file


def init(*options: str, answers: str = "", code: int = 0) -> str:
    done = CliRunner().invoke(app, ["init", *options], input=answers)
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written() -> Job:
    return load_job("job.toml")


def test_questions_and_options_write_the_same_file(here: Path) -> None:
    csv_file(here)
    asked = init(answers="requests.csv\n\n\n\nnone\n\n\n5\n")
    by_questions = Path("job.toml").read_text()
    for words in ("columns request, intent, speaker", "Column of the label", "wrote job.toml"):
        assert words in asked
    init("--data", "requests.csv", "--owner", "none", "--devices", "5", "--yes", "--force")
    assert Path("job.toml").read_text() == by_questions
    job = written()
    assert (job.data.path, job.data.text, job.data.label) == (str(here / "requests.csv"), "request", "intent")
    assert (job.fleet.devices, job.data.test_share, job.data.partition.kind) == (5, 0.1, "iid")
    checked = CliRunner().invoke(app, ["check", "job.toml", "--json"], env={"SLIMFED_HOME": str(here / "home")})
    assert checked.exit_code == 0, checked.output
    assert json.loads(checked.stdout)["train_examples"] == 360
    assert by_questions.count("#") > 8


def test_a_wrong_answer_is_asked_again(here: Path) -> None:
    csv_file(here)
    asked = init(answers="requests.csv\nsorting\nclassification\nnothing\nrequest\nintent\nnone\n\n\n\n")
    assert "'sorting' is not one of classification, causal-lm" in asked
    assert "'nothing' is not one of request, intent, speaker" in asked
    assert written().data.text == "request"


def test_owners_keep_their_rows(here: Path) -> None:
    csv_file(here, ";")
    init("--data", "requests.csv", "--owner", "speaker", "--yes")
    job = written()
    assert job.data.delimiter == ";"
    assert (job.data.partition.kind, job.data.partition.column) == ("natural", "speaker")
    checked = CliRunner().invoke(app, ["check", "job.toml"], env={"SLIMFED_HOME": str(here / "home")})
    assert checked.exit_code == 0, checked.output
    assert "whole owners" in checked.output


def test_prompts_and_completions_are_seen(here: Path) -> None:
    rows = [{"question": f"what is {n}", "answer": f"it is {n * n}"} for n in range(60)]
    (here / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (here / "test.jsonl").write_text(json.dumps(rows[0]) + "\n")
    init("--data", ".", "--yes")
    job = written()
    assert (job.model.task, job.data.prompt, job.data.completion) == ("causal-lm", "question", "answer")
    assert job.model.path == "builtin:tiny-decoder"
    assert job.data.test_share is None


def test_empty_rows_are_said_and_left_out(here: Path) -> None:
    file = csv_file(here)
    file.write_text(file.read_text() + ",light_on,ann\n")
    init("--data", "requests.csv", "--owner", "none", "--yes")
    assert written().data.empty == "drop"
    assert "rows that lack a value are left out: 1" in Path("job.toml").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "--data: is missing"),
        (["--data", "nothing.csv"], "there is no such file"),
        (["--data", "requests.csv", "--text", "words"], "--text = 'words': must be one of request, intent, speaker"),
        (["--data", "requests.csv", "--task", "sorting"], "--task = 'sorting'"),
        (["--data", "requests.csv", "--devices", "9999"], "--devices = 9999"),
        (["--data", "requests.csv", "--fleet", "nofleet"], "--fleet = 'nofleet'"),
        (["--data", "requests.csv", "--fleet", "none.toml"], "--fleet = 'none.toml'"),
        (["--data", "requests.csv", "--model", "builtin:nope"], "--model = 'builtin:nope'"),
        (["--data", "requests.csv", "--model", "./nofolder"], "--model = './nofolder'"),
        (["--data", "requests.csv", "--label", "request"], "drawn by the seed (try another), does not have"),
    ],
)
def test_options_that_do_not_fit_are_named_and_nothing_is_written(here: Path, options: list[str], words: str) -> None:
    csv_file(here)
    assert words in " ".join(init(*options, "--yes", code=2).split())
    assert not Path("job.toml").exists()


def test_no_answer_names_the_option_and_a_job_file_is_not_replaced(here: Path) -> None:
    csv_file(here)
    assert "--task: there was no answer" in init("--data", "requests.csv", code=2)
    Path("job.toml").write_text("")
    assert "there is such a file" in init("--data", "requests.csv", "--yes", code=2)
