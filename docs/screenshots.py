"""Pictures of the dashboard, taken from a store with a headless Chromium.

    python docs/screenshots.py --home slimfed-runs --run last --out docs/images

The home is the one that ``SLIMFED_HOME`` names for the other commands. Needs the packages of the ``test`` extra and a
Chromium (Debian: ``apt-get install chromium``; elsewhere name it with ``--chromium``).
"""

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, expect, sync_playwright

from slimfed.dashboard.serve import serving

PATIENCE = 60_000
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass(frozen=True)
class Picture:
    """One picture: file name, page, window and what must be there before it is taken."""

    name: str
    page: str
    width: int
    height: int
    scheme: Literal["light", "dark"]
    shows: str
    whole: bool


def pictures(run: str) -> tuple[Picture, ...]:
    """The list of runs, and one run in light and dark, as a window and whole, wide and narrow."""
    one, charts = f"/run?run={run}", ".js-plotly-plot .main-svg:first-child >> nth=4"
    return (
        Picture("runs.png", "/", 1280, 520, "light", "[data-testid=stDataFrame] canvas", False),
        Picture("run.png", one, 1280, 1180, "light", charts, False),
        Picture("run-whole.png", one, 1280, 900, "light", charts, True),
        Picture("run-dark.png", one, 1280, 900, "dark", charts, True),
        Picture("run-phone.png", one, 390, 844, "light", charts, True),
    )


def take(browser: Browser, address: str, picture: Picture, out: Path) -> None:
    """Open the page, wait for what it must show and for two equal pictures in a row, and write the file."""
    page = browser.new_page(
        viewport={"width": picture.width, "height": picture.height}, color_scheme=picture.scheme, device_scale_factor=1
    )
    page.goto(address + picture.page, timeout=PATIENCE)
    page.wait_for_selector(picture.shows, timeout=PATIENCE)
    if picture.whole:
        expect(page.get_by_role("heading", name="Job", exact=True)).to_be_attached(timeout=PATIENCE)
        page.wait_for_function("!document.querySelector('[data-testid=stStatusWidget]')", timeout=PATIENCE)
        height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
        page.set_viewport_size({"width": picture.width, "height": height})
    before = b""
    for _ in range(30):
        page.wait_for_timeout(700)
        now = page.screenshot(animations="disabled")
        if now == before:
            break
        before = now
    (out / picture.name).write_bytes(before)
    page.close()


def main() -> None:
    """Serve the store, take every picture, stop serving."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path("slimfed-runs"))
    parser.add_argument("--run", default="last", help="id of the run, or last")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with (
        serving({"SLIMFED_HOME": str(given.home.absolute()), "SLIMFED_STORE": ""}) as address,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=given.chromium, args=list(FLAGS))
        for picture in pictures(given.run):
            take(browser, address, picture, given.out)
            print(given.out / picture.name)
        browser.close()


if __name__ == "__main__":
    main()
