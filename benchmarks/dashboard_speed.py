"""Time to show a large store in the dashboard: 1,000 runs, one of them with 10,000 devices and 200 rounds.

    python benchmarks/dashboard_speed.py [--stores sqlite postgresql] [--devices 10000] [--rounds 200] [--runs 1000]

Fills a store of each kind in a temporary folder (PostgreSQL: a server of its own), opens the pages in a headless
Chromium, and writes the table in benchmarks/README.md. All times count from asking for the address. "First useful
paint" ends with figures of the run or fleet, a table or the form on the screen, "whole" with the first chart or table
of what the address names, "settled" with the last chart, table or figure, after which the page keeps its height; all
with a browser that was never there. "Next visit" is "whole" with one that was. "Update" is the time from a round's
commit to its number on the screen. "Queries" is the time that the page's questions to the store take by themselves.
Medians of ``--repeats``.
"""

import argparse
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, sync_playwright
from readme_table import put
from sqlalchemy import Connection, insert, text, update

from slimfed.dashboard.serve import Served, serving
from slimfed.platform.job.job import job_to_dict, parse_job
from slimfed.platform.store.dashboard_reader import Insight
from slimfed.platform.store.database import writing
from slimfed.platform.store.rollups import sum_up_round
from slimfed.platform.store.schema import BlockLeft, Device, Evaluation, Event, Round, Run
from slimfed.platform.store.writer import Store

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
from postgres import private_server

BIG = "20260101-000000-big"
CLASSES = ("jetson-tx2", "jetson-xavier-nx", "jetson-agx-xavier")
METRIC = "[data-testid=stMetricValue]"
PATIENCE = 60_000
QUIET_SECONDS = 0.7
"""A page in which nothing changes for so long has settled."""
# What is drawn, and the height of the page; clocks that count up are no change.
WATCH = """window.changed = performance.now();
let before = '';
setInterval(() => {
    const main = document.querySelector('[data-testid=stMain]');
    const drawn = document.querySelectorAll('.main-svg, canvas, [data-testid=stMetricValue], [data-testid=stCode]');
    const now = `${drawn.length} ${main ? main.scrollHeight : 0}`;
    if (now !== before) { before = now; window.changed = performance.now(); }
}, 50);"""
SETTLED = f"performance.now() - window.changed > {1000 * QUIET_SECONDS}"
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")

# What a device did in a round, from numbers that look drawn: ``n`` in [0, 1000), ``m`` in [0, 997).
_ASSIGNMENTS = """
INSERT INTO assignments (run_id, round, device, status, rank, pruning_step, sparsity, reward, loss_before, loss_after,
    examples, download_seconds, compute_seconds, upload_seconds, measured_seconds, flops, peak_memory_bytes, bytes_down,
    bytes_up)
SELECT run_id, round, device, CASE WHEN n < 5 THEN 'dropout' ELSE 'done' END, 2 + 2 * (n % 4), 0.0004 * m,
    0.5 * round / (round + 40.0) + 0.0002 * n, 0.0001 * m, 0.9, 0.8, 100, 0.3 + 0.0001 * n, 2.0 + 0.005 * m,
    0.2 + 0.0001 * m, 0.1, 1e9, 400000000, 100000, 30000
FROM (SELECT r.run_id AS run_id, r.round AS round, d.device AS device,
             (d.device * 7919 + r.round * 10473) % 1000 AS n, (d.device * 104729 + r.round * 7907) % 997 AS m
      FROM rounds r JOIN devices d ON d.run_id = r.run_id WHERE r.run_id = :run AND r.round >= :first) AS drawn
"""


@dataclass(frozen=True)
class View:
    """A page: its address, what is useful at first, what makes it whole, and what it asks of the store."""

    name: str
    path: str
    useful: str
    whole: str
    asks: Callable[[Insight], object]


@dataclass(frozen=True)
class Paint:
    """Seconds from asking for a page to something useful on it, to what it is opened for, and to its last change."""

    useful: float
    whole: float
    settled: float


def views(run: str, others: Sequence[str]) -> tuple[View, ...]:
    drawn, listed, figures = ".js-plotly-plot .main-svg:first-child", "[data-testid=stDataFrame] canvas", METRIC
    one, code = f"/run?run={run}", "[data-testid=stCode]"
    return (
        View("runs", "/", listed, listed, lambda ask: ask.runs(2000)),
        View(
            "run, learning",
            one,
            figures,
            drawn,
            lambda ask: (ask.find_run(run), ask.rounds(run), ask.evaluations(run), ask.slowest_devices(run)),
        ),
        View("run, timeline", f"{one}&tab=Timeline", figures, drawn, lambda ask: ask.late_devices(run, 2, 18)),
        View("run, costs", f"{one}&tab=Costs", figures, drawn, lambda ask: ask.rounds(run)),
        View("run, maps", f"{one}&tab=Maps", figures, drawn, lambda ask: ask.heat_map(run)),
        View("run, bandit", f"{one}&tab=Bandit", figures, drawn, lambda ask: (ask.class_sizes(run), ask.pulls(run))),
        View("run, structure", f"{one}&tab=Structure", figures, drawn, lambda ask: ask.blocks(run)),
        View("run, devices", f"{one}&tab=Devices", figures, listed, lambda ask: ask.slowest_rows(run, 1000)),
        View(
            "run, events",
            f"{one}&tab=Events",
            figures,
            drawn,
            lambda ask: (ask.event_rounds(run), ask.events(run, 500)),
        ),
        View(
            "compare, 3 runs",
            f"/compare?runs={run},{','.join(others)}",
            drawn,
            drawn,
            lambda ask: (ask.runs(1000, archived=False), ask.jobs([run, *others]), ask.courses([run, *others])),
        ),
        View("launch", "/launch?begin=The+built-in+job", code, code, lambda ask: ask.queued()),
        View(
            "fleet",
            f"/fleet?run={run}",
            listed,
            drawn,
            lambda ask: (ask.class_sizes(run), ask.class_peaks(run), ask.class_rounds(run), ask.event_rounds(run)),
        ),
    )


def fill(store: Store, runs: int, devices: int, rounds: int) -> list[str]:
    """Fill the store; returns the ids of two small runs."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    small = [f"20260101-{second // 3600:02d}{second // 60 % 60:02d}{second % 60:02d}-run" for second in range(1, runs)]
    with writing(store.engine) as connection:
        rows = [
            _run(name, "sst2-on-jetsons", 80, 20, "done", now + timedelta(seconds=i)) for i, name in enumerate(small)
        ]
        connection.execute(insert(Run), [*rows, _run(BIG, "ten-thousand", devices, rounds + 10, "running", now)])
        for name in small:
            _rounds(connection, name, 1, 20)
        of = [{"run_id": BIG, "device": d, "profile": CLASSES[d % 8 // 3], "examples": 100} for d in range(devices)]
        connection.execute(insert(Device), of)
        add_rounds(connection, 1, rounds)
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    return small[:2]


def add_rounds(connection: Connection, first: int, last: int) -> None:
    """Rounds of the large run, as the recorder leaves them behind."""
    _rounds(connection, BIG, first, last)
    connection.execute(text(_ASSIGNMENTS), {"run": BIG, "first": first})
    blocks = [
        {"run_id": BIG, "round": r, "block": b, "layer": b // 2, "kind": ("attention", "ffn")[b % 2]}
        | {"units": 64, "kept": 40.0, "shares": bytes(range(0, 256, 4))}
        for r in range(first, last + 1)
        for b in range(24)
    ]
    connection.execute(insert(BlockLeft), blocks)
    events = [
        {"run_id": BIG, "at": datetime.now(UTC), "round": r, "device": d, "kind": "dropout", "cause": "it left"}
        | {"remedy": "nothing to do"}
        for r in range(first, last + 1)
        for d in range(50)
    ]
    connection.execute(insert(Event), events)
    for number in range(first, last + 1):
        sum_up_round(connection, BIG, number)
    connection.execute(update(Run).where(Run.id == BIG).values(rounds_done=last, heartbeat_at=datetime.now(UTC)))


def _run(name: str, title: str, devices: int, rounds: int, status: str, at: datetime) -> dict[str, object]:
    job = {"name": title, "seed": 7, "fleet": {"devices": devices}, "training": {"rounds": rounds}}
    return {
        "id": name,
        "name": title,
        "method": "fedspine",
        "status": status,
        "job": job_to_dict(parse_job(job)),
        "folder": f"/nowhere/{name}",
        "seed": 7,
        "rounds": rounds,
        "rounds_done": rounds if status == "done" else 0,
        "devices": devices,
        "target_sparsity": 0.5,
        "created_at": at,
        "started_at": at,
        "heartbeat_at": datetime.now(UTC),
        "host": "elsewhere",
        "accuracy": 0.9,
        "sparsity": 0.5,
        "course": [0.9 - 0.8 * 0.8**i for i in range(20)],
    }


def _rounds(connection: Connection, name: str, first: int, last: int) -> None:
    numbers = range(first, last + 1)
    common = {"run_id": name, "finished_at": datetime.now(UTC), "virtual_seconds": 8.0, "wall_seconds": 4.0}
    rows = [
        common
        | {"round": r, "train_loss": 1.0 / r, "sparsity": 0.5 * r / (r + 10), "global_sparsity": 0.5 * r / (r + 10)}
        | {"virtual_clock": 8.0 * r, "bytes_up": 10**8, "bytes_down": 10**8, "accepted": 79, "rejected": 1}
        | {"slowest_device": r}
        for r in numbers
    ]
    connection.execute(insert(Round), rows)
    measured = [
        {"run_id": name, "round": r, "loss": 1.0 / r, "accuracy": 0.9 - 0.8 * 0.9**r, "examples": 1000, "sparsity": 0.4}
        for r in numbers
    ]
    connection.execute(insert(Evaluation), measured)


def visits(browser: Browser, served: Served, view: View) -> tuple[Paint, Paint]:
    """The page in a browser that was never here, and once more in the same one."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    first, second = paint(context, served, view), paint(context, served, view)
    context.close()
    return first, second


def paint(context: BrowserContext, served: Served, view: View) -> Paint:
    """Open the page and wait until it is whole."""
    page = context.new_page()
    page.add_init_script(WATCH)
    began = time.perf_counter()
    page.goto(served.url(view.path), timeout=PATIENCE)
    page.wait_for_selector(view.useful, timeout=PATIENCE)
    useful = time.perf_counter() - began
    page.wait_for_selector(view.whole, timeout=PATIENCE)
    whole = time.perf_counter() - began
    page.wait_for_function(SETTLED, timeout=PATIENCE, polling=50)
    settled = time.perf_counter() - began - QUIET_SECONDS
    page.close()
    return Paint(useful, whole, max(settled, whole))


def updates(browser: Browser, served: Served, store: Store, first: int, repeats: int) -> list[float]:
    """Seconds from the commit of a round to its number on the page of the run."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(served.url(f"/run?run={BIG}"), timeout=PATIENCE)
    page.wait_for_selector(".js-plotly-plot .main-svg:first-child", timeout=PATIENCE)
    took = []
    for number in range(first, first + repeats):
        page.wait_for_timeout(1500)
        with writing(store.engine) as connection:
            add_rounds(connection, number, number)
            # Before the commit: SQLite tidies up for a while after the moment at which others see the round.
            began = time.perf_counter()
        page.locator(".st-key-progress").get_by_text(f"Round {number} of ").wait_for(timeout=PATIENCE)
        took.append(time.perf_counter() - began)
    page.close()
    return took


def asked(store: Store, view: View, repeats: int) -> float:
    """Seconds that the page's questions take by themselves."""
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        view.asks(Insight(store.engine))
        took.append(time.perf_counter() - began)
    return statistics.median(took)


@contextmanager
def opened(kind: str) -> Iterator[tuple[str, Path]]:
    """The address of an empty store, and a home."""
    with tempfile.TemporaryDirectory(prefix="slimfed-speed-") as folder:
        if kind == "sqlite":
            yield "sqlite", Path(folder)
        else:
            with private_server() as server:
                yield f"{server}/postgres", Path(folder)


def measure(kind: str, browser: Browser, given: argparse.Namespace) -> list[str]:
    """The rows of one kind of store."""
    with opened(kind) as (url, home), Store.open(url, home) as store:
        began = time.perf_counter()
        others = fill(store, given.runs, given.devices, given.rounds)
        print(f"{kind}: filled in {time.perf_counter() - began:.0f} s", file=sys.stderr)
        rows = []
        with serving({"SLIMFED_HOME": str(home), "SLIMFED_STORE": url}) as served:
            for view in views(BIG, others):
                both = [visits(browser, served, view) for _ in range(given.repeats)]
                seconds = (
                    statistics.median(first.useful for first, _ in both),
                    statistics.median(first.whole for first, _ in both),
                    statistics.median(first.settled for first, _ in both),
                    statistics.median(second.whole for _, second in both),
                )
                shown = " | ".join(f"{value:.2f}" for value in seconds)
                rows.append(f"| {kind} | {view.name} | {shown} | {asked(store, view, given.repeats):.3f} |")
                print(rows[-1], file=sys.stderr)
            took = statistics.median(updates(browser, served, store, given.rounds + 1, given.repeats))
            pulse = View("", "", "", "", lambda ask: (ask.pulse(BIG), ask.find_run(BIG), ask.rounds(BIG)))
            rows.append(f"| {kind} | update | {took:.2f} | | | | {asked(store, pulse, given.repeats):.3f} |")
            print(rows[-1], file=sys.stderr)
        return rows


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", nargs="+", default=["sqlite", "postgresql"], choices=["sqlite", "postgresql"])
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    given = parser.parse_args()
    load = os.getloadavg()[0]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=given.chromium, args=list(FLAGS))
        rows = [row for kind in given.stores for row in measure(kind, browser, given)]
        browser.close()
    head = [
        "| store | page | first useful paint or update, s | whole, s | settled, s | next visit, s | queries, s |",
        "|---|---|---|---|---|---|---|",
    ]
    note = (
        f"{given.runs:,} runs; the large one has {given.devices:,} devices x {given.rounds} rounds. {os.cpu_count()} "
        f"cores ({platform.machine()}), load average {load:.1f} when it began; medians of {given.repeats}."
    )
    table = "\n".join([*head, *rows, "", note])
    print(table)
    put("dashboard-speed", table)


if __name__ == "__main__":
    main()
