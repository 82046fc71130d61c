"""The dashboard: ``slimfed dashboard``, or ``python -m slimfed.dashboard.serve``. It shows and starts runs."""

from dataclasses import replace

import streamlit as st

from slimfed.dashboard import source
from slimfed.dashboard.access import login
from slimfed.dashboard.views import compare, fleet, launch, run, runs

# Inline, because a named icon would be fetched from the internet.
ICON = (
    '<svg viewBox="0 0 16 16"><rect x="1" y="2" width="14" height="3" rx="1" fill="#0072B2"/>'
    '<rect x="1" y="6.5" width="10" height="3" rx="1" fill="#009E73"/>'
    '<rect x="1" y="11" width="6" height="3" rx="1" fill="#E69F00"/></svg>'
)
# Less space at the top, smaller figures, no fading while figures are updated, no old button beside its successor (which
# Streamlit keeps until the whole page is drawn), and the form's job file always visible on a wide screen.
LOOKS = """<style>
[data-testid="stMainBlockContainer"] { padding-top: 4rem; padding-bottom: 4rem; max-width: 1360px; }
[data-testid="stMain"] h1 { font-size: 1.7rem; padding-top: 0; padding-bottom: 0.1rem; }
[data-testid="stMetricValue"] { font-size: 1.5rem; }
.st-key-large [data-testid="stMetricValue"] { font-size: 1.9rem; line-height: 1.2; }
.st-key-small [data-testid="stMetricValue"] { font-size: 1.05rem; line-height: 1.3; }
.st-key-small [data-testid="stMetricLabel"], .st-key-small [data-testid="stMetricLabel"] p { font-size: 0.8rem; }
.st-key-small { row-gap: 0.3rem; }
.st-key-estimated [data-testid="stMetricValue"] { font-size: 1.1rem; line-height: 1.3; }
.st-key-estimated { row-gap: 0.4rem; }
[data-testid="stVerticalBlock"]:has(> .st-key-head), [data-testid="stVerticalBlock"]:has(> * > .st-key-head) {
    gap: 0.45rem; }
.st-key-computing, .st-key-failures { gap: 0.4rem; }
.st-key-computing button, .st-key-failures button, .st-key-waiting button { min-height: 0; }
.stApp[data-test-script-state="running"] .st-key-start button:focus { cursor: wait; filter: brightness(0.8); }
.stApp[data-test-script-state="running"] .st-key-start button:focus::after { content: "…"; }
.st-key-notice:empty { display: none; }
.st-key-part-learning, .st-key-part-learning [data-testid="stVerticalBlock"] { gap: 0.4rem; }
.st-key-progress { min-width: min(320px, 100%); }
@media (min-width: 1100px) { .st-key-axis-row { margin-top: -2.75rem; pointer-events: none; }
    .st-key-axis-row > * { pointer-events: auto; } }
[data-testid="stStatusWidget"] { display: none; }
[data-stale="true"] { opacity: 1 !important; transition: none !important; }
.st-key-go:has([data-stale="false"]) [data-stale="true"] { display: none; }
@media (min-width: 900px) { .st-key-paper { position: sticky; top: 4.2rem; } }
[data-testid="stLayoutWrapper"]:has(> .st-key-cards), [data-testid="stLayoutWrapper"]:has(> .st-key-state) {
    display: none; }
.run-card { display: grid; grid-template-columns: 1fr auto; gap: 0.1rem 0.75rem; padding: 0.7rem 0.85rem;
    margin-bottom: 0.6rem; border: 1px solid rgba(140,140,140,0.35); border-radius: 0.6rem; color: inherit !important;
    text-decoration: none !important; }
.run-card-name { font-weight: 600; overflow-wrap: anywhere; }
.run-card-figure { font-size: 1.25rem; font-weight: 600; text-align: right; }
.run-card-state { color: var(--state); font-weight: 600; font-size: 0.85rem; }
[data-theme="dark"] .run-card-state { filter: brightness(1.6); }
.run-card-facts { grid-column: 1 / -1; font-size: 0.85rem; opacity: 0.75; }
.run-card-facts span { white-space: nowrap; }
@media (max-width: 640px) {
    [data-testid="stLayoutWrapper"]:has(> .st-key-cards), [data-testid="stLayoutWrapper"]:has(> .st-key-state) {
        display: flex; }
    .st-key-runs-table, .st-key-listed-hint { display: none !important; }
    [data-testid="stLayoutWrapper"]:has(> .st-key-tabs) { position: sticky; top: 3.5rem; z-index: 90;
        background-color: inherit; padding: 0.3rem 0; }
    [data-testid="stAppViewContainer"], [data-testid="stMain"], [data-testid="stMainBlockContainer"],
    [data-testid="stMainBlockContainer"] > [data-testid="stVerticalBlock"] { background-color: inherit; }
    .st-key-tabs [data-testid="stButtonGroup"] > div > :has([aria-checked="true"]),
    .st-key-tabs [role="radiogroup"] > [aria-checked="true"],
    .st-key-tabs [role="radiogroup"] > :has(input:checked) { order: -1; }
    .st-key-small [data-testid="stMetricLabel"], .st-key-small [data-testid="stMetricLabel"] p { font-size: 0.72rem; }
    .st-key-tabs { gap: 0.2rem; }
    .st-key-tabs [data-testid="stButtonGroup"] > div, .st-key-tabs [role="radiogroup"] {
        flex-wrap: nowrap !important; overflow-x: auto; scrollbar-width: thin; max-width: 100%; }
    .st-key-tabs [role="radio"], .st-key-tabs button { flex: none; }
    [data-testid="stMainBlockContainer"] { padding-left: 1rem; padding-right: 1rem; }
    .st-key-figures { flex-wrap: wrap !important; }
    .st-key-figures > [data-testid="stLayoutWrapper"] { flex: 0 0 100% !important; width: 100% !important; }
    .st-key-large, .st-key-small { width: 100% !important; column-gap: 0.5rem; }
    .st-key-large > * { width: calc(50% - 0.25rem) !important; flex: none !important; min-width: 0 !important; }
    .st-key-small > * { width: calc(33.3% - 0.34rem) !important; flex: none !important; min-width: 0 !important; }
}
</style>"""


def main() -> None:
    """Five pages. What a page shows is in its address, which can be shared: ``/run?run=ID&tab=Timeline``."""
    st.set_page_config(page_icon=ICON, layout="wide")
    operator = login.require_login().role == "operator"
    store = replace(source.here(), operator=operator)

    def open_run(chosen: str) -> None:
        st.switch_page(one, query_params={"run": chosen})

    def show_runs() -> None:
        runs.show(store, open_run, lambda chosen: st.switch_page(several, query_params={"runs": ",".join(chosen)}))

    def show_run() -> None:
        run.show(
            store,
            st.query_params.get("run", ""),
            lambda chosen: st.switch_page(form, query_params={"from": chosen}),
            open_run,
        )

    def show_comparison() -> None:
        compare.show(store, st.query_params.get("runs", ""), lambda ids: _remember("runs", ids))

    def show_form() -> None:
        launch.show(store, st.query_params.get("from", ""), open_run)

    def show_fleet() -> None:
        fleet.show(store, st.query_params.get("run", ""), lambda chosen: _remember("run", chosen))

    every = st.Page(show_runs, title="Runs", default=True)
    one = st.Page(show_run, title="Run", url_path="run")
    several = st.Page(show_comparison, title="Compare", url_path="compare")
    form = st.Page(show_form, title="Launch", url_path="launch")
    who = st.Page(show_fleet, title="Fleet", url_path="fleet")
    page = st.navigation([every, one, several, *([form] if operator else []), who], position="top")
    st.html(LOOKS)
    page.run()


def _remember(name: str, value: str) -> None:
    """Write the shown page's state into the address."""
    if value:
        st.query_params[name] = value
    else:
        st.query_params.pop(name, None)


main()
