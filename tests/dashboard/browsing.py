"""What tests with a real browser look for, and how long they wait."""

from playwright.sync_api import expect

PATIENCE = 60_000
"""Milliseconds; a page of a busy two-core machine may take its time, but not more than this."""

CHARTS = ".js-plotly-plot"
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


def shows(page, text, patience=PATIENCE):
    expect(page.get_by_text(text).first).to_be_visible(timeout=patience)


def charts(page, count):
    expect(page.locator(f"{CHARTS} .main-svg:first-child")).to_have_count(count, timeout=PATIENCE)


def overflow(page):
    """Pixels by which the page is wider than its window."""
    return page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth - window.innerWidth")
