"""The dashboard as its users meet it: a real server, a real Chromium, a store that is written meanwhile."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from browsing import CHARTS, DESKTOP, PATIENCE, PHONE, charts, misfits, overflow, shows
from playwright.sync_api import expect
from sample import SampleRun, new_store
from typer.testing import CliRunner

from slimfed.dashboard.views.run import REFRESH_SECONDS
from slimfed.platform.cli import app
from slimfed.platform.glossary import FIGURES

pytestmark = pytest.mark.timeout(240)
LISTED_SOME = re.compile(r"^1 of \d+ runs, newest first\.")
LISTED = re.compile(r"^1 run, newest first\.")
WATCH_EVERY_FRAME = """() => {
    Object.assign(window, { fewest: 99, faintest: 1, frames_seen: 0 });
    const look = () => {
        const drawn = [...document.querySelectorAll('.js-plotly-plot .main-svg:first-child')];
        window.fewest = Math.min(window.fewest, drawn.length);
        for (const chart of drawn)
            for (let part = chart; part instanceof Element; part = part.parentElement)
                window.faintest = Math.min(window.faintest, Number(getComputedStyle(part).opacity));
        window.frames_seen += 1;
        requestAnimationFrame(look);
    };
    look();
}"""
WATCH_WIDTHS_AND_BUTTONS = """() => {
    Object.assign(window, { narrowest: 9999, together: 0 });
    const look = () => {
        for (const chart of document.querySelectorAll('.js-plotly-plot .main-svg:first-child'))
            window.narrowest = Math.min(window.narrowest, chart.getBoundingClientRect().width);
        const shown = [...document.querySelectorAll('[data-testid=stButton]')].filter(button => button.offsetParent);
        const names = shown.map(button => button.innerText);
        const steers = names.filter(name => /\\b(Stop|Stopping|Resume)$/.test(name.trim()));
        window.together = Math.max(window.together, steers.length);
        requestAnimationFrame(look);
    };
    look();
}"""
SCROLLED = "document.querySelector('[data-testid=stMain]').scrollTop"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def store(home):
    return new_store(home)


@pytest.fixture(scope="module")
def finished(store):
    return SampleRun(store, name="finished", rounds=6).play(6).end()


@pytest.fixture(scope="module")
def served(serve, home, finished):
    with serve(home) as started:
        yield started


def places(page, *buttons):
    """Where buttons stand on their page, whatever part of it is in sight."""
    scrolled = page.evaluate(SCROLLED)
    boxes = [page.get_by_role("button", name=name, exact=True).bounding_box() for name in buttons]
    return [(box["x"], box["y"] + scrolled) for box in boxes]


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_a_finished_run_is_shown_whole(open_page, served, finished, size, scheme):
    page = open_page(served.url(f"/run?run={finished.id}"), size, scheme)
    for text in ("Round 6 of 6", "Devices' accuracy", "Virtual time"):
        shows(page, text)
    charts(page, 3)
    shows(page, "Accuracy (% of test examples)")
    shows(page, "Loss (nats)")
    assert page.title().endswith("6/6 · finished")
    if size == DESKTOP:
        assert page.get_by_text("Loss", exact=True).bounding_box()["y"] < 320, "the charts begin too low"
    for tab, text, drawn in (
        ("Timeline", "Time since the round began", 1),
        ("Maps", "LoRA rank (rows of each factor)", 2),
        ("Bandit", "Pruning step (% of the remaining structure)", 1),
        ("Structure", "Kept (% of the fleet's devices)", 1),
        ("Job", "The job with all defaults", 0),
    ):
        page.get_by_role("radio", name=tab).click()
        shows(page, re.compile(re.escape(text)))
        charts(page, drawn)
        assert f"tab={tab}" in page.url
        assert overflow(page) <= 0


def test_page_and_command_write_every_figure_alike(open_page, served, home, finished, monkeypatch):
    """One formatter and one word for each figure; what the cells of tables are like is tested in test_columns.py."""
    monkeypatch.setenv("SLIMFED_HOME", str(home))
    printed = CliRunner().invoke(app, ["show", finished.id]).stdout
    page = open_page(served.url(f"/run?run={finished.id}"))
    shows(page, "Devices' sparsity")
    metrics = page.get_by_test_id("stMetric").all()
    shown = {metric.locator("label").inner_text().strip(): metric for metric in metrics}
    values = {name: metric.get_by_test_id("stMetricValue").inner_text().strip() for name, metric in shown.items()}
    assert set(values) <= set(FIGURES)
    lines = {line[:14].strip(): line[14:] for line in printed.splitlines() if line[:1].isalpha()}
    for word in ("Accuracy", "Sparsity"):
        own = values[f"Devices' {word.lower()}"]
        assert lines[word.lower()].startswith(f"{values[word]} global model, {own} devices")
    assert lines["traffic"] == f"{values['Received']} received, {values['Sent']} sent"
    assert lines["virtual time"] == values["Virtual time"]
    assert lines["wall time"].startswith(values["Wall time"])
    page.get_by_test_id("stMetric").first.get_by_test_id("stTooltipHoverTarget").hover()
    shows(page, re.compile(re.escape(FIGURES["Accuracy"][:60])))


def test_curves_over_virtual_time(open_page, served, finished):
    page = open_page(served.url(f"/run?run={finished.id}"))
    charts(page, 3)
    page.get_by_role("radio", name="Virtual time").click()
    expect(page.get_by_text(re.compile(r"^Virtual time \((s|min)\)$"))).to_have_count(2, timeout=PATIENCE)


def test_a_link_leads_to_a_tab_of_a_run(open_page, served, finished):
    page = open_page(served.url(f"/run?run={finished.id}"))
    charts(page, 3)
    page.get_by_role("radio", name="Structure").click()
    page.wait_for_url("**tab=Structure**", timeout=PATIENCE)
    elsewhere = open_page(page.url, PHONE, "dark")
    elsewhere.get_by_label("Token").fill(served.token)  # another browser: it asks, and then leads on
    elsewhere.get_by_role("button", name="Open").click()
    shows(elsewhere, "FFN channels")
    expect(elsewhere.get_by_role("radio", name="Structure")).to_be_checked(timeout=PATIENCE)
    assert overflow(elsewhere) <= 0


def test_tabs_are_reached_by_keyboard(open_page, served, finished):
    page = open_page(served.url(f"/run?run={finished.id}"))
    charts(page, 3)
    page.get_by_role("radio", name="Learning").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    shows(page, re.compile("^The last round moved"))


def test_a_clone_begins_as_a_copy(open_page, served, finished):
    page = open_page(served.url(f"/run?run={finished.id}"))
    charts(page, 3)
    page.get_by_role("button", name="Clone", exact=True).click()
    shows(page, "Begins as a copy of the run")
    assert page.url.endswith(f"/launch?from={finished.id}")
    expect(page.get_by_label("Rounds", exact=True).first).to_have_value("6", timeout=PATIENCE)


def test_a_table_is_saved_whole(open_page, served, finished):
    page = open_page(served.url(f"/run?run={finished.id}&tab=Devices"))
    for label, begins in (("CSV", b"device,class,"), ("Parquet", b"PAR1")):
        with page.expect_download(timeout=PATIENCE) as saved:
            page.get_by_test_id("stDownloadButton").filter(has_text=label).first.click()
        content = Path(saved.value.path()).read_bytes()
        assert content.startswith(begins)
        assert saved.value.suggested_filename.endswith(label.lower())


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "dark"), (PHONE, "light")])
def test_every_page_fits_its_window(open_page, served, finished, size, scheme):
    for place, text in (
        ("/", "1 run, newest first"),
        ("/launch?begin=The+built-in+job", "The job file"),
        (f"/fleet?run={finished.id}", "Memory of each class"),
        ("/compare", "Choose two to 8 runs"),
    ):
        page = open_page(served.url(place), size, scheme)
        shows(page, re.compile(text))
        assert overflow(page) <= 0, place
        assert page.get_by_test_id("stException").count() == 0


def test_a_phone_shows_runs_as_cards_and_keeps_the_tabs_in_sight(open_page, served, finished):
    page = open_page(served.url(), PHONE)
    card = page.locator(f"a.run-card[href='run?run={finished.id}']")
    expect(card).to_be_visible(timeout=PATIENCE)
    assert re.search(r"\d+\.\d%", card.inner_text())
    assert "done" in card.inner_text()
    expect(page.get_by_test_id("stDataFrame").first).to_be_hidden()
    card.click()
    page.wait_for_url(f"**/run?run={finished.id}*", timeout=PATIENCE)
    charts(page, 3)
    tabs = page.get_by_role("radio", name="Structure")
    page.evaluate("document.querySelector('[data-testid=stMain]').scrollTop = 1500")
    page.wait_for_function("document.querySelector('.st-key-tabs').getBoundingClientRect().y < 120", timeout=PATIENCE)
    shows(page, "round 6 of 6")
    assert page.locator(".st-key-tabs").bounding_box()["y"] >= 50, "the tabs are below the top bar"
    tabs.click()
    shows(page, "FFN channels")
    chosen = page.locator(".st-key-tabs [role=radiogroup] :is([aria-checked=true], :has(> input:checked))").first
    assert chosen.bounding_box()["x"] < PHONE["width"] - 60, "the chosen tab is in sight"


@pytest.mark.parametrize(
    "place",
    [
        "/",
        "/run?tab=Learning",
        "/run?tab=Timeline",
        "/run?tab=Bandit",
        "/run?tab=Structure",
        "/run?tab=Model",
        "/fleet",
    ],
)
def test_nothing_is_clipped_on_a_phone(open_page, served, finished, place):
    page = open_page(served.url(f"{place}{'&' if '?' in place else '?'}run={finished.id}"), PHONE)
    if place.startswith("/run"):
        shows(page, "Devices' accuracy")
    page.wait_for_function("!document.querySelector('.stApp[data-test-script-state=running]')", timeout=PATIENCE)
    page.wait_for_timeout(1500)
    assert misfits(page) == []


def test_the_list_leads_to_a_run_and_back(open_page, served, finished):
    page = open_page(served.url())
    shows(page, LISTED)
    table = page.get_by_test_id("stDataFrame")
    box = table.bounding_box()
    page.mouse.click(box["x"] + 90, box["y"] + 35 + 17)
    page.wait_for_url(f"**/run?run={finished.id}", timeout=PATIENCE)
    shows(page, "Round 6 of 6")
    page.go_back()
    shows(page, LISTED)
    page.go_forward()
    shows(page, "Round 6 of 6")
    page.get_by_role("link", name="Runs", exact=True).click()
    shows(page, LISTED)


def test_a_running_run_goes_on_without_a_reload(open_page, served, store):
    running = SampleRun(store, name="going", rounds=20, seed=8).play(3)
    page = open_page(served.url(f"/run?run={running.id}"))
    shows(page, "Round 4 of 20")
    charts(page, 3)
    page.get_by_text("The rounds as a table").scroll_into_view_if_needed()
    page.evaluate(WATCH_EVERY_FRAME)
    scrolled = page.evaluate(SCROLLED)
    assert scrolled > 0
    points = f"document.querySelector('{CHARTS}').calcdata[0].length"
    before = page.evaluate(points)

    running.play(2)
    shows(page, "Round 6 of 20")
    page.wait_for_function(f"{points} === {before + 2}", timeout=PATIENCE)
    assert page.evaluate(SCROLLED) == scrolled, "the page jumped"
    assert page.evaluate("window.fewest") >= 3, "a chart was missing from a frame: it flickers"
    assert page.evaluate("window.faintest") == 1, "a chart faded while newer figures were on their way"

    before = places(page, "Clone", "Archive")
    running.end()
    shows(page, re.compile(r"^. done$"))
    assert page.evaluate("window.frames_seen") > 0, "the page was loaded anew"
    assert places(page, "Clone", "Archive") == before, "a button moved: whoever is pressing one gets another"


def test_a_stop_is_a_state_of_its_own_and_moves_nothing_into_another_place(open_page, served, store):
    running = SampleRun(store, name="to-stop", rounds=20, seed=11).play(3)
    page = open_page(served.url(f"/run?run={running.id}"))
    shows(page, re.compile(r"^. running$"))
    charts(page, 3)
    page.evaluate(WATCH_WIDTHS_AND_BUTTONS)
    page.get_by_role("button", name="Stop", exact=True).click()
    shows(page, re.compile(r"^. stopping$"))
    expect(page.get_by_role("button", name="Stopping")).to_be_disabled(timeout=PATIENCE)
    expect(page.get_by_role("button", name="Resume")).to_have_count(0)
    shows(page, "Stopping after round 3 of 20")
    running.end("stopped", "asked to stop")
    shows(page, re.compile(r"^. stopped$"))
    expect(page.get_by_role("button", name="Resume")).to_be_enabled(timeout=PATIENCE)
    expect(page.get_by_role("button", name=re.compile("^Stop"))).to_have_count(0)
    charts(page, 3)
    assert page.evaluate("window.narrowest") > 400, "a chart was drawn into a narrower place"
    assert page.evaluate("window.together") == 1, "Stop and Resume stood there together"


def test_a_round_under_way_is_told_from_its_preparation_on(open_page, served, store):
    running = SampleRun(store, name="first-round", rounds=20, seed=12)
    page = open_page(served.url(f"/run?run={running.id}"))
    shows(page, re.compile(r"^. preparing$"))
    shows(page, re.compile("^Preparing: opens text and model"))
    began = datetime.now(UTC) - timedelta(seconds=100)
    values = {"phase": "training", "round": 1, "devices": 24, "devices_done": 7, "rows": 0, "rows_done": 0}
    store.write_progress(running.id, {**values, "share": 0.3, "seconds_left": 1800.0, "began_at": began})
    shows(page, re.compile(r"^. running$"))
    told = page.get_by_text(
        re.compile(r"^Round 1 of 20 · training, 7 of 24 devices · 1 min \d\d s so far · about 30 min left$")
    )
    expect(told).to_be_visible(timeout=PATIENCE)
    first = told.inner_text()
    page.wait_for_function("before => !document.body.innerText.includes(before)", arg=first, timeout=PATIENCE)
    store.write_progress(
        running.id,
        {**values, "phase": "evaluating", "rows": 1000, "rows_done": 250, "share": 0.9, "began_at": began},
    )
    shows(page, re.compile("evaluating the global model, 250 of 1,000 test texts"))
    listed = open_page(served.url("/?q=first-round"), PHONE, "dark")
    shows(listed, LISTED_SOME)
    running.end("stopped")


def test_a_run_that_has_ended_is_asked_for_no_more(browser, served, finished):
    page = browser.new_page(viewport=DESKTOP)
    sent = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(frame)))
    page.goto(served.url(f"/run?run={finished.id}"))
    charts(page, 3)
    page.wait_for_timeout(4000 * REFRESH_SECONDS)
    before = len(sent)
    assert before > 0
    page.wait_for_timeout(6000 * REFRESH_SECONDS)
    assert len(sent) == before
    page.close()


def test_a_failed_run_says_why_and_what_to_do(open_page, served, store):
    failed = SampleRun(store, name="failed", seed=9).play(2).end("failed", "The quorum was missed: 3 of 24 answered.")
    page = open_page(served.url(f"/run?run={failed.id}"))
    shows(page, "The quorum was missed: 3 of 24 answered.")
    shows(page, f"slimfed resume {failed.id}")


def test_an_unknown_run_is_explained(open_page, served):
    page = open_page(served.url("/run?run=nowhere"))
    shows(page, "This address leads to no run.")


def test_an_empty_store_greets_and_shows_the_first_run_by_itself(open_page, serve, tmp_path):
    with serve(tmp_path / "home") as served:
        page = open_page(served.url(), PHONE)
        shows(page, "Welcome to slimfed.")
        shows(page, "slimfed run")
        assert not (tmp_path / "home").exists(), "reading must not make a store"
        engine = new_store(tmp_path / "home")
        SampleRun(engine, devices=8).play(1)
        shows(page, LISTED)


def test_a_broken_store_is_explained_without_a_stack_trace(open_page, serve, tmp_path):
    (tmp_path / "store.db").write_bytes(b"this is no database" * 100)
    with serve(tmp_path) as served:
        for place in ("", "/run?run=any"):
            page = open_page(served.url(place))
            shows(page, "is not a slimfed store, or it is damaged")
            shows(page, "SLIMFED_HOME")
            assert page.get_by_text("Traceback").count() == 0
            assert page.get_by_test_id("stException").count() == 0
        (tmp_path / "store.db").unlink()
        new_store(tmp_path)
        shows(page, "This address leads to no run.")
