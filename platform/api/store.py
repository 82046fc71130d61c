"""The store from Python: the list of runs, and single runs."""

from pathlib import Path
from typing import TYPE_CHECKING

from slimfed.platform.api.results import RunResult, place
from slimfed.platform.home import store_url
from slimfed.platform.store.database import resolve_url
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store
from slimfed.platform.summary import run_summaries

if TYPE_CHECKING:
    import pandas as pd


class RunStore:
    """The recorded runs. No connection is kept open; every call reads the store."""

    def __init__(self, url: str, home: Path) -> None:
        self.url = url
        self.home = home

    @property
    def runs(self) -> "pd.DataFrame":
        """All runs, newest first, a row each, indexed by the run's id; columns as in ``slimfed runs --json``."""
        import pandas as pd  # here: as in ``results``

        with Store.open(self.url, self.home) as opened:
            reader = Reader(opened.engine)
            found = run_summaries(reader.runs(limit=None), reader, opened.address)
        return pd.DataFrame(found).set_index("run_id") if found else pd.DataFrame()

    def run(self, run: str = "last") -> RunResult:
        """The run with this id, its beginning, or "last". Raises ``InputError`` if there is none."""
        return RunResult.read(run, self.home, self.url)

    def __repr__(self) -> str:
        return f"RunStore({str(resolve_url(self.url, self.home))!r})"


def open_store(url: str | None = None, home: str | Path | None = None) -> RunStore:
    """The store at ``url`` ("sqlite", "sqlite:///PATH" or "postgresql+psycopg://..."); None: that of the command line.

    ``home``: folder of the runs, where "sqlite" lies. Raises ``InputError`` if the store cannot be reached.
    """
    store = RunStore(url or store_url(), place(home))
    Store.open(store.url, store.home).close()
    return store
