"""Pictures of the dashboard, taken from a store with a headless Chromium.

    python docs/screenshots.py --home slimfed-runs --run last --other RUN --out docs/images

The home is the one that ``SLIMFED_HOME`` names for the other commands. Needs the packages of the ``test`` extra and a
Chromium (Debian: ``apt-get install chromium``; elsewhere name it with ``--chromium``).
"""

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, sync_playwright

from slimfed.dashboard.serve import Served, serving

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
    """One picture: file name, page, window, and what must be there (and how often) before it is taken."""

    name: str
    page: str
    width: int
    height: int
    scheme: Literal["light", "dark"]
    shows: str
    whole: bool = True
    count: int = 1


def pictures(run: str, other: str) -> tuple[Picture, ...]:
    """Every page, and one run in light and dark, wide and narrow."""
    one, chart = f"/run?run={run}", ".js-plotly-plot .main-svg:first-child"
    return (
        Picture("runs.png", "/", 1280, 460, "light", "[data-testid=stDataFrame] canvas", whole=False),
        Picture("run.png", one, 1280, 900, "light", chart, count=3),
        Picture("run-phone.png", one, 390, 844, "dark", chart, count=3),
        Picture("timeline.png", f"{one}&tab=Timeline", 1280, 1240, "light", chart, whole=False),
        Picture("maps-dark.png", f"{one}&tab=Maps", 1280, 900, "dark", chart, count=2),
        Picture("bandit.png", f"{one}&tab=Bandit", 1280, 900, "light", chart),
        Picture("costs.png", f"{one}&tab=Costs", 1280, 900, "light", chart, count=3),
        Picture("runs-phone.png", "/", 390, 844, "light", "a.run-card", whole=False),
        Picture("structure.png", f"{one}&tab=Structure", 1280, 900, "light", chart, count=2),
        Picture("compare.png", f"/compare?runs={run},{other}", 1280, 900, "light", chart, count=2),
        Picture(
            "launch.png",
            "/launch?begin=The+built-in+job",
            1280,
            900,
            "light",
            "[data-testid=stCode]",
            whole=False,
        ),
        Picture("fleet.png", f"/fleet?run={run}", 1280, 900, "light", chart, count=2),
    )


def take(browser: Browser, served: Served, picture: Picture, out: Path) -> None:
    """Open the page, wait for what it must show and for two equal pictures in a row, and write the file."""
    page = browser.new_page(
        viewport={"width": picture.width, "height": picture.height}, color_scheme=picture.scheme, device_scale_factor=1
    )
    page.goto(served.url(picture.page), timeout=PATIENCE)
    page.wait_for_selector(picture.shows, timeout=PATIENCE)
    page.wait_for_function(
        f"document.querySelectorAll({picture.shows!r}).length >= {picture.count}"
        " && !document.querySelector('[data-testid=stStatusWidget]')",
        timeout=PATIENCE,
    )
    if picture.whole:
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
    parser.add_argument("--other", default="last", help="id of the run that it is compared with")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with (
        serving({"SLIMFED_HOME": str(given.home.absolute()), "SLIMFED_STORE": ""}) as served,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=given.chromium, args=list(FLAGS))
        for picture in pictures(given.run, given.other):
            take(browser, served, picture, given.out)
            print(given.out / picture.name)
        browser.close()


if __name__ == "__main__":
    main()
