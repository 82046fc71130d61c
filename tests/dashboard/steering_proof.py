"""Runs steered from the browser, on the real runtime: one story, told in the order in which a user lives it.

A slow proof, outside of ``make test``: it takes minutes, and on two cores it does not always end within its limit.

    python -m pytest tests/dashboard/steering_proof.py
"""

import re

import pytest
from playwright.sync_api import expect
from sample import SampleRun, new_store

from slimfed.platform.store.queries import Reader

pytestmark = pytest.mark.timeout(900)
SOON, PATIENCE = 60_000, 330_000
"""Milliseconds: for a page, and for a run that starts Flower and Ray on a busy machine."""
ROUNDS = 12
"""Enough that a stop after the first comes before the last; every start of the runtime costs more than all of them."""


def fill(page, label, value):
    """Type into a field of the form, and wait until the job file shows it."""
    field = page.get_by_label(label, exact=True).first
    field.fill(str(value))
    field.press("Enter")
    name = label.rpartition(".")[2]
    written = f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value}"
    expect(page.get_by_test_id("stCode").first).to_contain_text(written, timeout=SOON)


def status(page, name, patience=PATIENCE):
    expect(page.get_by_text(re.compile(rf"^. {name}$")).first).to_be_visible(timeout=patience)


def start(page, but=""):
    """Press Start, and wait for the page of the new run, which is not the one called ``but``."""
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url(lambda url: "/run?run=" in url and (not but or but not in url), timeout=PATIENCE)
    return re.search(r"run=([0-9a-z-]+)", page.url)[1]


def stop(page):
    page.get_by_role("button", name="Stop", exact=True).click()
    status(page, "stopped")


def test_launch_stop_resume_clone_watch_and_compare(browser, serve, tmp_path):
    home = tmp_path / "home"
    with new_store(home) as store, serve(home) as address:
        reader = Reader(store.engine)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(SOON)

        # A mistake is told before anything starts.
        page.goto(f"{address}/launch")
        fill(page, "name", "from-the-form")
        rounds = page.get_by_label("training.rounds", exact=True).first
        rounds.fill("0")
        rounds.press("Enter")
        expect(page.get_by_text("must be at least 1").first).to_be_visible(timeout=SOON)
        expect(page.get_by_role("button", name="Start", exact=True)).to_be_disabled()

        # Launch, see the first round come, and stop.
        for label, value in (
            ("training.rounds", ROUNDS),
            ("training.local_steps", 2),
            ("fleet.devices", 2),
            ("data.max_length", 8),
        ):
            fill(page, label, value)
        page.get_by_text(re.compile("^engine · ")).first.click()
        fill(page, "workers", 1)
        first = start(page)
        expect(page.get_by_text(re.compile(rf"Round [1-9]\d* of {ROUNDS}"))).to_be_visible(timeout=PATIENCE)
        stop(page)
        done = reader.find_run(first).rounds_done
        assert 1 <= done < ROUNDS

        # Resume it. A clone with a change waits in the queue behind it, and is stopped.
        page.get_by_role("button", name="Resume").click()
        expect(page.get_by_role("button", name="Stop", exact=True)).to_be_visible(timeout=PATIENCE)
        page.get_by_role("button", name="Clone").click()
        page.wait_for_url("**/launch?from=**", timeout=SOON)
        fill(page, "training.rounds", 400)
        second = start(page, but=first)
        stop(page)
        job = reader.find_run(second).job
        assert (job["training"]["rounds"], job["data"]["max_length"]) == (400, 8)

        # Watch the resumed one to its end: it went on where it was.
        page.goto(f"{address}/run?run={first}")
        status(page, "done")
        expect(page.get_by_text(f"Round {ROUNDS} of {ROUNDS}")).to_be_visible(timeout=SOON)
        assert [row.round for row in reader.rounds(first)] == list(range(1, ROUNDS + 1))

        # Compare it with the clone, and with a run that got as far, by a link.
        other = SampleRun(store).play(ROUNDS).end()
        page.goto(f"{address}/compare?runs={first},{second},{other.id}")
        expect(page.get_by_text("Cost to target")).to_be_visible(timeout=SOON)
        expect(page.get_by_text("How the jobs differ")).to_be_visible(timeout=SOON)
        expect(page.locator(".js-plotly-plot .main-svg:first-child")).to_have_count(2, timeout=SOON)
        assert page.get_by_test_id("stException").count() == 0
        page.close()
