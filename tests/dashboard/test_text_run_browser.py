"""A run of a language model as its page shows it: measures of text, samples, costs, and the model as a file."""

import io
import json
import re
import zipfile
from pathlib import Path

import pytest
from browsing import DESKTOP, PATIENCE, PHONE, charts, overflow, shows
from playwright.sync_api import expect
from sample import SampleRun

import slimfed
from slimfed.dashboard import format
from slimfed.platform.store.dashboard_reader import Insight
from slimfed.platform.store.writer import Store

pytestmark = pytest.mark.timeout(300)
JOB = {
    "name": "writer",
    "seed": 3,
    "model": {"path": "builtin:tiny-decoder", "task": "causal-lm"},
    "data": {"path": "builtin:commands", "max_length": 48},
    "fleet": {"devices": 2},
    "training": {"rounds": 2, "local_steps": 2, "batch_size": 4},
    "engine": {"dtype": "fp32", "cohort_size": 2},
    "evaluation": {"examples": 40, "device_examples": 20, "generate": {"examples": 5, "max_new_tokens": 8}},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def run(home):
    return slimfed.run(JOB, home=home, runtime="local", progress=False)


@pytest.fixture(scope="module")
def store(home, run):
    with Store.open("sqlite", home) as opened:
        SampleRun(opened, name="another", devices=8, rounds=5).play(2).end()
        yield opened


@pytest.fixture(scope="module")
def served(serve, home, store):
    with serve(home) as started:
        yield started


def test_completions_are_kept_of_the_last_round_alone(run, store):
    insight = Insight(store.engine)
    assert insight.sampled_rounds(run.id) == [2]
    row = insight.samples(run.id, 2)
    assert row.generated == len(row.samples) == 5
    assert all(each["prompt"] and each["references"] for each in row.samples)
    assert [each.rouge_l is None for each in insight.evaluations(run.id)] == [True, True, False]


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_the_head_has_the_measures_of_text_and_a_tab_what_was_written(open_page, served, run, store, size):
    page = open_page(served.url(f"/run?run={run.id}"), size)
    row = Insight(store.engine).find_run(run.id)
    charts(page, 3)
    labels = [each.inner_text().strip() for each in page.get_by_test_id("stMetricLabel").all()]
    assert labels[0] == "Perplexity"
    assert {"Bits a byte", "ROUGE-L", "BLEU", "Exact match"} <= set(labels)
    shows(page, format.ratio(row.bits_per_byte))
    page.get_by_role("radio", name="Samples").click()
    shows(page, "5 of the 5 prompts that the global model completed after this round")
    sample = Insight(store.engine).samples(run.id, 2).samples[0]
    shows(page, sample["prompt"])
    shows(page, sample["references"][0])
    assert overflow(page) <= 0


def test_costs_over_the_rounds(open_page, served, run):
    page = open_page(served.url(f"/run?run={run.id}&tab=Costs"))
    charts(page, 4)
    shows(page, re.compile("^The last round moved .* for each device"))
    assert overflow(page) <= 0


def test_the_model_is_exported_in_the_background_and_downloaded(open_page, served, run):
    page = open_page(served.url(f"/run?run={run.id}&tab=Model"))
    shows(page, "No model of this run has been exported yet.")
    page.get_by_role("button", name="Export", exact=True).click()
    shows(page, re.compile(r"Export: \d+ s so far"))
    page.get_by_role("button", name="Exported already").wait_for(timeout=2 * PATIENCE)
    with page.expect_download(timeout=PATIENCE) as saved:
        page.get_by_test_id("stDownloadButton").filter(has_text="Download").first.click()
    with zipfile.ZipFile(io.BytesIO(Path(saved.value.path()).read_bytes())) as archive:
        (manifest,) = (name for name in archive.namelist() if name.endswith("slimfed.json"))
        assert json.loads(archive.read(manifest))["provenance"]["run"] == run.id
    page.get_by_role("button", name="Measure").click()
    shows(page, re.compile(r"Measure: \d+ s so far"))
    expect(page.get_by_text(re.compile(r"Measure: \d+ s so far"))).to_have_count(0, timeout=2 * PATIENCE)
    (figures,) = (run.folder / "exports").glob("*.bench.json")
    assert json.loads(figures.read_text())["slim"]["latency"] > 0
    assert overflow(page) <= 0


def test_an_export_that_fails_says_so_at_its_button(open_page, served, store):
    other = Insight(store.engine).find_run("another")
    page = open_page(served.url(f"/run?run={other.id}&tab=Model"))
    page.get_by_role("button", name="Export", exact=True).click()
    shows(page, re.compile("has no checkpoint yet"))


def overheard(page):
    """What a page will complain about and ask for."""
    errors, asked = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text))
    page.on("request", lambda request: asked.append(request.url))
    return errors, asked


def test_the_report_is_one_page_that_needs_nothing_else(browser, open_page, served, run, store, tmp_path):
    page = open_page(served.url(f"/run?run={run.id}"))
    charts(page, 3)
    with page.expect_download(timeout=2 * PATIENCE) as saved:
        page.get_by_test_id("stDownloadButton").filter(has_text="Report").click()
    file = tmp_path / saved.value.suggested_filename
    file.write_bytes(Path(saved.value.path()).read_bytes())
    assert file.name == f"report-{run.id}.html"
    row = Insight(store.engine).find_run(run.id)
    for size in (DESKTOP, PHONE):
        alone = browser.new_page(viewport=size)
        errors, asked = overheard(alone)
        alone.goto(file.as_uri())
        assert errors == []
        assert asked == [file.as_uri()]
        told = alone.locator("body").inner_text()
        for text in ("Figures", "What it is judged by", "Method", "Data and model", "Structure", "How to reproduce"):
            assert text in told
        assert format.ratio(row.bits_per_byte) in told
        assert "seed 3" in told
        assert "Samples after round 2" in told
        assert alone.locator("svg").count() == 4
        assert alone.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
        alone.close()


def test_another_run_is_one_choice_away(open_page, served, run):
    page = open_page(served.url(f"/run?run={run.id}"))
    charts(page, 3)
    page.get_by_role("button", name="Runs", exact=True).click()
    page.get_by_role("combobox", name="Another run").first.click()
    page.get_by_role("option").filter(has_text="another").first.click()
    page.wait_for_url("**/run?run=another-*", timeout=PATIENCE)
    shows(page, "Round 2 of 5")
