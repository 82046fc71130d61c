"""Runs steered from the browser, on the real runtime: one story, told in the order in which a user lives it."""

import re

import pytest
from playwright.sync_api import expect
from sample import new_store

from slimfed.platform.store.queries import Reader

pytestmark = pytest.mark.timeout(900)
SOON, PATIENCE = 60_000, 330_000
"""Milliseconds: for a page, and for a run that starts Flower and Ray on a busy machine."""


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


def run_in(page):
    page.wait_for_url("**/run?run=**", timeout=PATIENCE)
    return re.search(r"run=([0-9a-z-]+)", page.url)[1]


def test_launch_watch_clone_stop_resume_and_compare(browser, serve, tmp_path):
    home = tmp_path / "home"
    with serve(home) as address:
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

        # Launch, and watch it to its end.
        for label, value in (
            ("training.rounds", 2),
            ("training.local_steps", 2),
            ("fleet.devices", 4),
            ("data.max_length", 16),
        ):
            fill(page, label, value)
        page.get_by_role("button", name="Start", exact=True).click()
        first = run_in(page)
        status(page, "done")
        expect(page.get_by_text("Round 2 of 2")).to_be_visible(timeout=SOON)

        # Clone it with a change, and stop it after its first round.
        page.get_by_role("button", name="Clone").click()
        page.wait_for_url("**/launch?from=**", timeout=SOON)
        fill(page, "training.rounds", 400)
        page.get_by_role("button", name="Start", exact=True).click()
        page.wait_for_url(lambda url: "/run?run=" in url and first not in url, timeout=PATIENCE)
        second = run_in(page)
        expect(page.get_by_text(re.compile(r"Round [1-9]\d* of 400"))).to_be_visible(timeout=PATIENCE)
        page.get_by_role("button", name="Stop", exact=True).click()
        status(page, "stopped")

        # Resume it: it goes on where it was.
        with new_store(home) as store:
            reader = Reader(store.engine)
            done = reader.find_run(second).rounds_done
            page.get_by_role("button", name="Resume").click()
            expect(page.get_by_role("button", name="Stop", exact=True)).to_be_visible(timeout=PATIENCE)
            page.wait_for_function(
                f"(Number((document.body.innerText.match(/Round (\\d+) of 400/) || [])[1]) || 0) > {done}",
                timeout=PATIENCE,
            )
            page.get_by_role("button", name="Stop", exact=True).click()
            status(page, "stopped")
            rounds_in_store = [row.round for row in reader.rounds(second)]
            assert rounds_in_store == list(range(1, len(rounds_in_store) + 1))
            assert len(rounds_in_store) > done

        # Compare the two by a link.
        page.goto(f"{address}/compare?runs={first},{second}")
        expect(page.get_by_text("Cost to target")).to_be_visible(timeout=SOON)
        expect(page.get_by_text("How the jobs differ")).to_be_visible(timeout=SOON)
        expect(page.locator(".js-plotly-plot .main-svg:first-child")).to_have_count(2, timeout=SOON)
        assert page.get_by_test_id("stException").count() == 0
        page.close()
