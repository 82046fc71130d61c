"""The dashboard: ``slimfed dashboard``, or ``python -m slimfed.dashboard.serve``. It only reads the store."""

import streamlit as st

from slimfed.dashboard import access, run, runs, source

# Drawn here, because a named icon would be fetched from a host on the internet.
ICON = (
    '<svg viewBox="0 0 16 16"><rect x="1" y="2" width="14" height="3" rx="1" fill="#0072B2"/>'
    '<rect x="1" y="6.5" width="10" height="3" rx="1" fill="#009E73"/>'
    '<rect x="1" y="11" width="6" height="3" rx="1" fill="#E69F00"/></svg>'
)
# Room at the top, figures of a calm size, and no fading of what is about to be replaced by newer figures.
LOOKS = """<style>
[data-testid="stMainBlockContainer"] { padding-top: 3.5rem; padding-bottom: 4rem; max-width: 1360px; }
[data-testid="stMain"] h1 { font-size: 2.1rem; }
[data-testid="stMetricValue"] { font-size: 1.5rem; }
[data-stale="true"] { opacity: 1 !important; transition: none !important; }
@media (max-width: 640px) { [data-testid="stMainBlockContainer"] { padding-left: 1rem; padding-right: 1rem; } }
</style>"""


def main() -> None:
    """Two pages: all runs at ``/``, and one run at ``/run?run=ID``, an address that can be shared."""
    st.set_page_config(page_icon=ICON, layout="wide")
    access.require_login()
    store = source.here()

    def show_runs() -> None:
        runs.show(store, lambda chosen: st.switch_page(one, query_params={"run": chosen}))

    def show_run() -> None:
        st.page_link(every, label="All runs", icon=":material/arrow_back:")
        run.show(store, st.query_params.get("run", ""))

    every = st.Page(show_runs, title="slimfed", default=True)
    one = st.Page(show_run, title="slimfed run", url_path="run")
    page = st.navigation([every, one], position="hidden")
    st.html(LOOKS)
    page.run()


main()
