"""Text of jobs and nodes: cleaned where it comes in, and harmless wherever it is shown, even from an older store.

The store is filled with text that was not cleaned, as a slimfed of before would have written it.
"""

import io
import json
from pathlib import Path
from urllib.request import urlopen

import pandas as pd
import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from honest_fleet import HONEST, reply, validate
from hypothesis import given
from hypothesis import strategies as st
from round_records import device_record, round_record
from sqlalchemy import text as sql
from typer.testing import CliRunner

from slimfed.clients.messages.records import encode_results
from slimfed.clients.plain_text import LONGEST, clean, clean_lines
from slimfed.clients.update import Failure
from slimfed.dashboard import format
from slimfed.dashboard.csv_file import csv_file
from slimfed.dashboard.figures import curves
from slimfed.platform import cli
from slimfed.platform.cli import app
from slimfed.platform.cli.output import print_table, results
from slimfed.platform.comparison.chart import write_chart
from slimfed.platform.comparison.report import choose_target, compare, load_courses
from slimfed.platform.integrations.prometheus import serve_prometheus
from slimfed.platform.job.job import job_to_dict, parse_job
from slimfed.platform.launch.progress import PlainLines, Snapshot
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store
from slimfed.strategies.local_grid import LocalGrid

HOSTILE = "x [/nope] y [red]z \x1b[2J\x1b]0;t\x07\x9b31m \r\nfake line \u202ereversed\u2066 \x00 =1+1"
HOSTILE += " $\\frac$ :smile: <b>&lt;"
UNSAFE = set("\x1b\x07\x9b\r\x00\u202e\u2066")
RUNS = ("run-1", "run-2")


def harmless(shown: str) -> None:
    assert not set(shown) & UNSAFE


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two finished runs whose every text is hostile."""
    monkeypatch.setenv("SLIMFED_HOME", str(tmp_path))
    monkeypatch.delenv("SLIMFED_STORE", raising=False)
    with Store.open("sqlite", tmp_path) as store:
        for seed, run in enumerate(RUNS):
            store.create_run(run, job_to_dict(parse_job({"seed": seed, "fleet": {"devices": 2}})), tmp_path / run)
            store.set_devices(run, [(0, "a", 5), (1, "a", 5)])
            store.record_round(run, round_record(1, (device_record(0), device_record(1))))
            store.finish(run, "failed", "x")
        with store.engine.begin() as connection:
            for table, columns in (("runs", "name sweep method cause notes host"), ("events", "kind cause remedy")):
                for column in columns.split():
                    connection.execute(sql(f"UPDATE {table} SET {column} = :text"), {"text": HOSTILE})
    return tmp_path


COMMANDS = [
    ["runs"],
    ["runs", "--json"],
    ["show", "run-1"],
    ["show", "run-1", "--json"],
    ["stop", "run-1"],
    ["compare", *RUNS],
    ["compare", *RUNS, "--json"],
    ["fleet"],
    ["methods"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_shows_text_as_it_is(home: Path, command: list[str]) -> None:
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    harmless(result.output)
    if command[0] in ("runs", "show") and "--json" not in command:
        assert "[/nope]" in result.output, "shown, not obeyed"
        assert ":smile:" in result.output
    if "--json" in command:
        json.loads(result.stdout)


def test_a_name_that_is_no_text_is_an_error_in_words(home: Path) -> None:
    result = CliRunner().invoke(app, ["show", HOSTILE])
    assert result.exit_code == 2
    harmless(result.output)


def test_an_input_error_is_plain_lines(tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    job.write_text(f"[method]\naggregation = {json.dumps('[/nope] ' + chr(27) + '[2J')}\n")
    result = CliRunner().invoke(app, ["run", str(job)])
    assert result.exit_code == 2
    harmless(result.output)


def test_every_command_prints_through_the_consoles_that_know_no_markup() -> None:
    """A new command that makes a console of its own, or prints by itself, is found here."""
    folder = Path(cli.__file__).parents[1]
    own = ("console.py", "cli/__init__.py", "cli/output.py", "launch/progress.py")
    for file in sorted(folder.rglob("*.py")):
        name, source = str(file.relative_to(folder)), file.read_text()
        if name not in own:
            words = ("Console(", "typer.echo", ".stdout.write", ".stderr.write", "\n    print(")
            assert not [word for word in words if word in source], name


def test_tables_titles_and_progress_are_plain(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(HOSTILE, {"a": HOSTILE}, [{"a": HOSTILE}])
    results().print(HOSTILE)
    with PlainLines(HOSTILE) as lines:
        lines.show(Snapshot(True, True, 1, 2, 0.5, 0.5, 1.0, HOSTILE))
    shown = capsys.readouterr()
    harmless(shown.out + shown.err)
    assert "[/nope]" in shown.out
    assert len(shown.err.splitlines()) == 2, "a line for the stop and one for the round"


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t=", "\r=", " ="])
def test_no_cell_of_a_csv_file_is_a_formula(begin: str) -> None:
    cell = f'{begin}HYPERLINK("http://x")\x1b[2J\nnext'
    frame = pd.DataFrame({f"{begin}head": [cell, "plain"], "number": [-1.5, 2.0], "text": ["-0.5", None]})
    back = pd.read_csv(io.BytesIO(csv_file(frame)), dtype=str)
    assert back.columns[0].startswith("'")
    assert back.iloc[0, 0].startswith("'")
    assert not any(value.startswith(("=", "+", "@", "\t", "\r")) for value in back.iloc[:, 0])
    harmless(back.iloc[0, 0])
    assert "\n" not in back.iloc[0, 0]
    assert back["number"].tolist() == ["-1.5", "2.0"]
    assert back["text"][0] == "-0.5", "a number that is written as text"


def test_prometheus_reads_one_line_a_figure(home: Path) -> None:
    with Store.open("sqlite", home) as store:
        server = serve_prometheus(Reader(store.engine), 0)
        with urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=30) as answer:
            page = answer.read().decode()
        server.shutdown()
    harmless(page)
    from prometheus_client.parser import text_string_to_metric_families

    names = {s.labels.get("name") for family in text_string_to_metric_families(page) for s in family.samples}
    assert clean(HOSTILE) in names


def test_a_page_and_a_chart_take_no_text_for_markup(home: Path) -> None:
    for made in (format.plain(HOSTILE), format.code(HOSTILE), format.figure(HOSTILE)):
        harmless(made)
        assert "\n" not in made
    assert "\\[/nope\\]" in format.plain(HOSTILE)
    assert "<b>" not in format.figure(HOSTILE)
    assert "`" not in format.code("a`b")
    with Store.open("sqlite", home) as store:
        courses = load_courses(Reader(store.engine), RUNS, "accuracy")
    comparison = compare(courses, "accuracy", choose_target(courses), {})
    write_chart(comparison, home / "chart.svg")
    harmless((home / "chart.svg").read_text())
    frame = pd.DataFrame(
        {
            "virtual_clock": [1.0],
            "round": [1],
            "megabytes": [1.0],
            "quality": [0.5],
            "examples": [1],
            "test_examples": [1],
        }
    )
    figure = curves.runs_compared({HOSTILE: frame}, "time", "Accuracy", 0.5)
    harmless(str(figure.to_dict()))
    assert "<b>" not in str(figure.data[0].name)


def test_text_of_a_node_is_one_plain_line_of_limited_length() -> None:
    endless = HOSTILE + 100_000 * "x"
    content = encode_results([Failure(2, "x")])
    content["failures"] = ConfigRecord({"2": endless})
    LocalGrid(0)
    asked = Message(RecordDict(), 4, "train")
    broken = Message(Error(1, f"traceback\n{endless}"), reply_to=asked)
    honest = [reply(n, encode_results([u])) for n, (_, u) in enumerate(HONEST, 1) if n not in (3, 4)]
    found = validate([*honest, reply(3, content), broken])
    causes = {event.device: event.cause for event in found.events}
    assert set(causes) == {2, 3}
    for cause in causes.values():
        harmless(cause)
        assert "\n" not in cause
        assert len(cause) <= LONGEST + 60


def test_the_name_of_a_job_is_cleaned_and_a_name_of_nothing_is_refused() -> None:
    assert parse_job({"name": "a\x1b[2Jb\u202e \n c"}).name == "a [2Jb c"
    with pytest.raises(Exception, match="name"):
        parse_job({"name": "\x1b\n"})


@given(st.text())
def test_clean_text_is_stable_and_printable(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    assert not any(ord(sign) < 32 or 127 <= ord(sign) < 160 or 0xD800 <= ord(sign) < 0xE000 for sign in once)
    once.encode()
    clean_lines(text).encode()
