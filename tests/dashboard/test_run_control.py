"""Runs steered from the browser, on the real runtime: one story, told in the order in which a user lives it.

What is stopped has far more rounds than anybody waits for, what is watched to its end has two: nothing here is a race.
"""

import re
import time

import pytest
from playwright.sync_api import expect
from sample import new_store

from slimfed.dashboard.job_fields import Field
from slimfed.platform.store.reader import Reader

pytestmark = pytest.mark.timeout(900)
SOON, PATIENCE = 60_000, 300_000
"""Milliseconds: for a page, and for a run that starts Flower and Ray on a busy machine."""
MANY, FEW = 5000, 2
"""Rounds of the run that is stopped, and of the one that is watched to its end."""

DEMO = "/launch?begin=The+built-in+job"

WATCH_START = """() => {
    window.signed = false;
    const look = () => {
        const button = document.querySelector('.st-key-start button');
        if (!button) return;
        window.signed ||= getComputedStyle(button, '::after').content.includes('…');
        requestAnimationFrame(look);
    };
    look();
}"""


def labelled(page, path):
    """The field of the form that sets ``path`` of the job file."""
    label = Field(path, "text", None, "").label
    return page.get_by_label(label, exact=True).filter(visible=True).first  # kinds of fields load one by one


def fill(page, path, value):
    """Type into a field of the form, and wait until the job file shows it."""
    field = labelled(page, path)
    field.fill(str(value))
    field.press("Enter")
    name = path.rpartition(".")[2]
    written = f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value}"
    expect(page.get_by_test_id("stCode").first).to_contain_text(written, timeout=SOON)


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def status(page, name, patience=PATIENCE):
    expect(page.get_by_text(re.compile(rf"^. {name}$")).first).to_be_visible(timeout=patience)


def shows(page, text, patience=PATIENCE):
    expect(page.get_by_text(text).first).to_be_visible(timeout=patience)


def start(page):
    """Press Start, see that it gives a sign, and wait for the page of the new run, or for what is wrong with it."""
    page.evaluate(WATCH_START)
    press(page, "Start")
    page.wait_for_function(
        "location.pathname === '/run' || document.querySelector('[data-testid=stAlert]')", timeout=PATIENCE
    )
    assert "/run?run=" in page.url, page.get_by_test_id("stAlert").inner_text()
    assert page.evaluate("window.signed"), "the button gave no sign while the run was put into the queue"
    return re.search(r"run=([0-9a-z-]+)", page.url)[1]


def wait_for_rounds(reader, run, count):
    """Wait until so many rounds of a run are recorded."""
    deadline = time.monotonic() + PATIENCE / 1000
    while reader.find_run(run).rounds_done < count:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_launch_stop_resume_clone_watch_and_compare(browser, serve, tmp_path):
    home = tmp_path / "home"
    with new_store(home) as store, serve(home) as served:
        reader = Reader(store.engine)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(SOON)

        # A mistake is told before anything starts.
        page.goto(served.url(DEMO))
        fill(page, "name", "from-the-form")
        rounds = labelled(page, "training.rounds")
        rounds.fill("0")
        rounds.press("Enter")
        shows(page, "must be at least 1", SOON)
        expect(page.get_by_role("button", name="Start", exact=True)).to_be_disabled()

        # So is a folder that is not there, at its field.
        fill(page, "training.rounds", MANY)
        fill(page, "data.path", "./nowhere")
        expect(page.get_by_text('data.path = "./nowhere": there is no such folder')).to_have_count(2, timeout=5000)
        expect(page.get_by_role("button", name="Start", exact=True)).to_be_disabled()
        path = labelled(page, "data.path")
        path.fill("builtin:commands")
        path.press("Enter")
        expect(page.get_by_role("button", name="Start", exact=True)).to_be_enabled(timeout=SOON)

        # What only the model tells is why the run failed, on its page, where Start leads at once.
        fill(page, "training.rounds", FEW)
        page.get_by_text(re.compile("^bandit · ")).first.click()
        ranks = labelled(page, "bandit.ranks")
        ranks.fill("[2, 512]")
        ranks.press("Enter")
        expect(page.get_by_test_id("stCode").first).to_contain_text("512", timeout=SOON)
        began = time.monotonic()
        start(page)
        assert time.monotonic() - began < 10
        status(page, "failed")
        shows(page, "bandit.ranks: 512 is larger than the smallest adapted layer", SOON)
        page.goto(served.url(DEMO))
        fill(page, "name", "from-the-form")

        # Launch, see a round come, and stop.
        for label, value in (
            ("training.rounds", MANY),
            ("training.local_steps", 2),
            ("fleet.devices", 2),
            ("data.max_length", 8),
        ):
            fill(page, label, value)
        page.get_by_text(re.compile("^engine · ")).first.click()
        fill(page, "engine.workers", 1)
        long = start(page)
        shows(page, re.compile(rf"Round [1-9][\d,]* of {MANY}"))
        wait_for_rounds(reader, long, 1)
        press(page, "Stop")
        status(page, "stopped")
        done = reader.find_run(long).rounds_done
        assert 1 <= done < MANY

        # Resume it, by a link. A short clone waits behind it in the queue, while it goes on where it was.
        shared = page.url
        page.goto(shared)
        press(page, "Resume")
        expect(page.get_by_role("button", name="Stop", exact=True)).to_be_visible(timeout=PATIENCE)
        page.goto(served.url(f"/launch?from={long}"))
        fill(page, "training.rounds", FEW)
        short = start(page)
        shows(page, "waits until nothing else runs on this computer", SOON)
        assert reader.find_run(short).job["data"]["max_length"] == 8
        page.goto(shared)
        wait_for_rounds(reader, long, done + 1)
        press(page, "Stop")
        status(page, "stopped")
        ran = [row.round for row in reader.rounds(long)]
        assert ran == list(range(1, len(ran) + 1))
        assert len(ran) > done

        # Now it is the clone's turn: watch it to its end.
        page.goto(served.url(f"/run?run={short}"))
        status(page, "done")
        shows(page, f"Round {FEW} of {FEW}", SOON)
        assert len(reader.rounds(short)) == FEW

        # Compare the two, and share the link of that.
        page.goto(served.url(f"/compare?runs={short},{long}"))
        shows(page, "Differences of the jobs", SOON)
        shows(page, "Cost to target", SOON)
        expect(page.locator(".js-plotly-plot .main-svg:first-child")).to_have_count(2, timeout=SOON)
        assert page.get_by_test_id("stException").count() == 0
        page.close()
