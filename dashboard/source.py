"""The store that the pages read, named by the environment, and messages for failures to read it."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, tzinfo
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import streamlit as st
from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from slimfed.clients.errors import InputError
from slimfed.dashboard import format
from slimfed.platform.home import home
from slimfed.platform.store.dashboard_reader import Insight
from slimfed.platform.store.database import resolve_url, shown, sqlite_reader, unreachable
from slimfed.platform.store.writer import Store

PATIENCE_SECONDS = 5
"""Seconds to wait for a server's answer or a locked file."""
AGAIN_SECONDS = 3.0
"""Seconds between attempts to read a store after a failure."""


@dataclass(frozen=True)
class Problem:
    """Why the store cannot be read: a sentence with the cause, and one with the remedy."""

    sentence: str
    remedy: str


@dataclass(frozen=True)
class Source:
    """The store of the pages: ``sqlite`` or an address, the home, and the time zone of the reader.

    ``operator``: whether controls that start, stop and change runs are shown.
    """

    named: str
    home: Path
    zone: tzinfo = UTC
    operator: bool = True

    @property
    def url(self) -> URL:
        """The store's address. Raises ``InputError`` for one that slimfed cannot use."""
        return resolve_url(self.named, self.home)

    @property
    def address(self) -> str:
        """The store for display: a file's path, or a server's address without its password."""
        return str(self.url.database) if self.url.get_backend_name() == "sqlite" else shown(self.url)

    @property
    def missing(self) -> bool:
        """True if the SQLite file does not exist yet, because there was no run."""
        try:
            url = self.url
        except InputError:
            return False
        return url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists()

    @contextmanager
    def explained(self) -> Iterator[Insight]:
        """Context with a reader for one part of a page. A failure of the store is shown in its place."""
        try:
            yield Insight(engine(self.url))
        except (InputError, SQLAlchemyError) as error:
            problem = explain(error, self)
            st.error(f"**{problem.sentence}**  \n{problem.remedy}", icon=":material/database_off:")
            st.fragment(_look_again, run_every=AGAIN_SECONDS)(self, time.monotonic())

    @contextmanager
    def writing(self) -> Iterator[Store]:
        """Context with the writable store, for changes by a page. Raises ``InputError`` if it cannot be used."""
        with Store.open(self.named, self.home) as store:
            yield store


def _look_again(source: Source, since: float) -> None:
    """Redraw the page once the store can be read. ``since``: time of the failure."""
    if time.monotonic() - since < AGAIN_SECONDS / 2:
        return
    with suppress(InputError, SQLAlchemyError):
        Insight(engine(source.url)).runs(1)
        st.rerun()


def here() -> Source:
    """The store that ``SLIMFED_STORE`` and ``SLIMFED_HOME`` name, and the zone of the browser that is being served."""
    try:
        zone: tzinfo = ZoneInfo(st.context.timezone or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        zone = UTC
    return Source(os.environ.get("SLIMFED_STORE") or "sqlite", home(), zone)


@st.cache_resource(show_spinner=False, max_entries=4, hash_funcs={URL: lambda url: url.render_as_string(False)})
def engine(url: URL) -> Engine:
    """A read-only engine. SQLite opens its file for each connection, so a replaced store is noticed."""
    if url.get_backend_name() != "sqlite":
        options = {"connect_timeout": PATIENCE_SECONDS, "options": "-c default_transaction_read_only=on"}
        return create_engine(url, pool_size=2, pool_pre_ping=True, connect_args=options, hide_parameters=True)
    file = Path(str(url.database))

    reader = partial(sqlite_reader, file, PATIENCE_SECONDS)
    return create_engine("sqlite://", creator=reader, poolclass=NullPool, hide_parameters=True)


def explain(error: Exception, source: Source) -> Problem:
    """Cause and remedy of a failure to read, without password and stack trace."""
    if isinstance(error, InputError):
        return Problem(
            f"The store cannot be used: {format.plain(str(error))}.",
            "Set `SLIMFED_STORE` to a valid address, or leave it out, and start the dashboard again.",
        )
    cause = str(unreachable(source.url, error)).partition("the store cannot be reached: ")[2]
    store, said = f"`{format.code(source.address)}`", f"The database said: `{format.code(cause)}`."
    if any(sign in cause for sign in ("no such table", "no such column", "does not exist")):
        return Problem(
            f"The store {store} was not written by this version of slimfed.",
            f"Bring it up to date with `slimfed db upgrade`; this page then shows it. {said}",
        )
    if any(sign in cause for sign in ("not a database", "malformed")):
        return Problem(
            f"The file {store} is not a slimfed store, or it is damaged.",
            "Point `SLIMFED_HOME` or `SLIMFED_STORE` at another store, restore the file from a copy, or move it away "
            f"and rebuild it with `slimfed db recover`. {said}",
        )
    return Problem(
        f"The store {store} cannot be read at the moment.",
        f"Check that it exists, that its server runs and that you may read it; this page retries automatically. {said}",
    )
