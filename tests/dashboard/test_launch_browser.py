"""The page that starts a run, in a real browser: from a file of one's own to the page of its run."""

import csv
import json
import re
import tomllib
from pathlib import Path

import pytest
from browsing import DESKTOP, PATIENCE, PHONE, overflow, shows
from playwright.sync_api import expect
from sample import SampleRun, new_store
from typer.testing import CliRunner

from slimfed.clients.builtin.commands import commands
from slimfed.dashboard import format
from slimfed.platform.cli import app
from slimfed.platform.store.reader import Reader

pytestmark = pytest.mark.timeout(240)
DEMO = "/launch?begin=The+built-in+job"
FILE = "File or folder with your text"
PROFILE = """[[class]]
name = "my-board"
fp32_gflops = 100
fp16_gflops = 200
efficiency = 0.3
memory_gib = 2
bandwidth_gb_s = 10
down_mbit_s = 10
up_mbit_s = 5
latency_ms = 10
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def store(home):
    opened = new_store(home)
    SampleRun(opened, name="busy")  # of this process, which is there: the queue waits for it
    return opened


@pytest.fixture(scope="module")
def served(serve, home, store):
    with serve(home) as started:
        yield started


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    file = tmp_path_factory.mktemp("own") / "requests.csv"
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["request", "intent", "speaker"])
        writer.writerows([row.text, row.label, row.user] for row in commands()[0][:400])
    return file


def job_file(page):
    return tomllib.loads(page.get_by_test_id("stCode").first.inner_text())


def writes(page, text):
    """Wait until the job file has ``text``."""
    expect(page.get_by_test_id("stCode").first).to_contain_text(text, timeout=PATIENCE)


def give(page, label, value):
    field = page.get_by_label(label, exact=True).first
    field.fill(value)
    return field


def begin(page, text):
    shows(page, FILE)
    give(page, FILE, str(text))
    shows(page, "400 rows. There is no test file, so a tenth of the rows is held out.")
    shows(page, "The job file")


def test_text_of_ones_own_becomes_a_run(open_page, served, reviews, store):
    page = open_page(served.url("/launch"))
    begin(page, reviews)
    for label, column in (("Column of the text", "request"), ("Column of the class", "intent")):
        expect(page.get_by_label(label, exact=True).first).to_have_value(column, timeout=PATIENCE)
    found = job_file(page)
    assert found["data"]["path"] == str(reviews)
    assert found["data"]["partition"] == {"kind": "natural", "column": "speaker"}
    assert "training" not in found, "what nobody gave is not sent"
    shows(page, re.compile("^Chosen for you: "))
    rate = give(page, "Learning rate", "-1")
    shows(page, "training.learning_rate = -1: must be above 0")
    expect(page.get_by_role("button", name="Start")).to_be_disabled(timeout=PATIENCE)
    expect(rate).to_be_focused()
    give(page, "Learning rate", "0.004")
    expect(page.get_by_role("button", name="Start")).to_be_enabled(timeout=PATIENCE)
    writes(page, "learning_rate = 0.004")
    page.get_by_role("button", name="Start").dblclick()
    page.wait_for_url("**/run?run=*", timeout=PATIENCE)
    listed, _ = Reader(store.engine).runs()
    run = Reader(store.engine).find_run(listed.id)
    assert run.id in page.url
    assert run.job["training"]["learning_rate"] == 0.004
    shows(page, "Waits until nothing else runs on this computer")
    page.get_by_role("button", name="Stop", exact=True).click()
    shows(page, re.compile("^. stopped$"))


def test_a_file_that_is_not_there_is_told_at_its_field(open_page, served):
    page = open_page(served.url("/launch"))
    shows(page, FILE)
    expect(page.get_by_role("button", name="Start")).to_be_disabled(timeout=PATIENCE)
    give(page, FILE, "/nowhere/text.csv")
    shows(page, 'data.path = "/nowhere/text.csv": there is no such file')
    expect(page.get_by_role("button", name="Start")).to_be_disabled(timeout=PATIENCE)


def test_an_upload_a_profile_and_an_estimate(open_page, served, reviews, home, monkeypatch):
    page = open_page(served.url("/launch"))
    shows(page, FILE)
    page.get_by_role("button", name="Upload").click()
    page.locator("input[type=file]").first.set_input_files(str(reviews))
    shows(page, "400 rows. There is no test file")
    page.keyboard.press("Escape")
    shows(page, "The job file")
    page.get_by_role("button", name="Own profile").click()
    wrong = {"name": "../mine.toml", "mimeType": "application/toml", "buffer": PROFILE.replace("0.3", "7").encode()}
    page.locator("input[type=file]").last.set_input_files(wrong)
    shows(page, re.compile(r"efficiency = 7(\.0)?: must be at most 1"))
    page.locator("input[type=file]").last.set_input_files(wrong | {"buffer": PROFILE.encode()})
    shows(page, re.compile(r"^\d+ my-board$"))
    page.keyboard.press("Escape")
    writes(page, "mine.toml")
    document = job_file(page)
    assert Path(document["fleet"]["profile"]).parents[1] == home / "uploads"
    page.get_by_role("button", name="Estimate").click()
    shows(page, re.compile("learns from 3[0-9]{2} training texts"), 2 * PATIENCE)
    file = home / "same.toml"
    file.write_text(page.get_by_test_id("stCode").first.inner_text())
    monkeypatch.setenv("SLIMFED_HOME", str(home))
    told = json.loads(CliRunner().invoke(app, ["check", str(file), "--json"]).stdout)
    shows(page, re.compile(f"{told['train_examples']} training texts, {told['test_examples']} test texts"))
    shows(page, format.seconds(told["estimate"]["virtual_seconds"]))
    shows(page, format.size(told["estimate"]["bytes"]))
    give(page, "Devices", "3")
    page.keyboard.press("Enter")
    shows(page, "The job has changed since: estimate it again.")


def test_a_job_file_is_taken_as_it_is(open_page, served):
    page = open_page(served.url("/launch?begin=A+job+file"))
    shows(page, "Give a job file first.")
    bad = {"name": "job.toml", "mimeType": "application/toml", "buffer": b"name = "}
    page.locator("input[type=file]").first.set_input_files(bad)
    shows(page, re.compile("is not valid TOML"))
    page.reload()
    good = b'name = "mine"\nseed = 3\n[training]\nrounds = 2\n[store]\nurl = "sqlite:////elsewhere"\n'
    page.locator("input[type=file]").first.set_input_files(bad | {"buffer": good})
    shows(page, "The job file")
    assert job_file(page) == {"name": "mine", "seed": 3, "training": {"rounds": 2}}
    shows(page, "is left out")


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_the_fields_are_in_order(open_page, served, reviews, size):
    page = open_page(served.url("/launch"), size)
    begin(page, reviews)
    labels = (FILE, "Column of the text", "Column of the class", "Longest text (tokens)", "Model", "Fleet", "Rounds")
    places = [page.get_by_label(name, exact=True).first for name in labels]
    heights = [place.bounding_box()["y"] for place in places]
    assert heights == sorted(heights)
    assert overflow(page) <= 0


def test_changes_are_undone(open_page, served):
    page = open_page(served.url(DEMO))
    shows(page, "The job file")
    give(page, "Rounds", "3")
    page.keyboard.press("Enter")
    shows(page, "Undo 1 change")
    writes(page, "rounds = 3")
    page.get_by_role("button", name="Undo 1 change").click()
    expect(page.get_by_label("Rounds", exact=True).first).to_have_value("12", timeout=PATIENCE)
    writes(page, "rounds = 12")
