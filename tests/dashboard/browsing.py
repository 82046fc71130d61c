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


CLIPPED = """() => {
    const found = [];
    for (const part of document.querySelectorAll('[data-testid=stMain] *')) {
        if (!part.offsetParent || part.closest('[data-testid=stDataFrame], svg, [data-testid=stCode]')) continue;
        if (![...part.childNodes].some(node => node.nodeType === 3 && node.textContent.trim())) continue;
        for (let box = part, up = 0; box && up < 4; box = box.parentElement, up += 1)
            if (getComputedStyle(box).overflowX === 'hidden' && box.scrollWidth > box.clientWidth + 1) {
                found.push(part.innerText.slice(0, 60));
                break;
            }
    }
    return found;
}"""
TOO_WIDE = """() => [...document.querySelectorAll('[data-testid=stMain] *')]
    .filter(part => part.offsetParent && part.getBoundingClientRect().right > window.innerWidth + 1)
    .filter(part => !part.closest('[data-testid=stDataFrame], .st-key-tabs'))
    .map(part => part.tagName + ' ' + (part.innerText || '').slice(0, 40))"""
"""Tables and the strip of tabs scroll sideways by themselves."""


def misfits(page):
    """Texts that are cut, and elements that are wider than the window."""
    return page.evaluate(CLIPPED) + page.evaluate(TOO_WIDE)


def overflow(page):
    """Pixels by which the page is wider than its window."""
    return page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth - window.innerWidth")
