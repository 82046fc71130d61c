import os
import shutil
import sys
from pathlib import Path

import pytest
from missing import missing

from slimfed.dashboard.serve import serving

sys.path.insert(0, str(Path(__file__).parent))

from browsing import DESKTOP, PATIENCE

CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium without a window."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("SLIMFED_CHROMIUM") or shutil.which("chromium")
    if path is None:
        missing("chromium is not installed (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(CHROMIUM_FLAGS), timeout=60_000)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser):
    """Opens an address; at the end no page may have asked anything of another computer."""
    pages, strangers = [], []

    def opened(address, size=None, scheme="light"):
        page = browser.new_page(viewport=size or DESKTOP, color_scheme=scheme)
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda asked: strangers.append(asked.url) if "//127.0.0.1" not in asked.url else None)
        pages.append(page)
        page.goto(address)
        return page

    yield opened
    for page in pages:
        page.close()
    assert [url for url in strangers if not url.startswith(("data:", "blob:"))] == []


@pytest.fixture(scope="session")
def serve():
    """``with serve(home) as address``: the dashboard of that home, on a free port of this computer."""
    return lambda home: serving({"SLIMFED_HOME": str(home), "SLIMFED_STORE": ""})
