"""Reaching a database: SQLite as a file in the home, or PostgreSQL by URL."""

import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from slimfed.clients.errors import InputError
from slimfed.platform.home import STORE

CONNECT_SECONDS = 5
"""Seconds to try to reach a server."""

LOCK_SECONDS = 30
"""Seconds to wait for another writer of an SQLite file."""

_PAUSE_SECONDS = 0.01
"""Seconds between two tries for a lock for which SQLite itself does not wait."""

DAMAGED = ("malformed", "not a database")
"""What SQLite says of a damaged file."""

REBUILD = "move it away with its -wal and -shm, then `slimfed db recover` rebuilds it from the run folders"
"""What to do with a damaged file."""

_VALID = "valid: sqlite, sqlite:///PATH, postgresql+psycopg://USER:PASSWORD@HOST/NAME"
_POSTGRES = ("postgres", "postgresql", "postgresql+psycopg")


def resolve_url(url: str, home: Path) -> URL:
    """``store.url`` of a job as a database address. Raises ``InputError`` for one that slimfed cannot use."""
    if url == "sqlite":
        return URL.create("sqlite", database=str(home.absolute() / STORE))
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise InputError(f"store.url: is not a database address; {_VALID}") from None
    if parsed.drivername in _POSTGRES:
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername in ("sqlite", "sqlite+pysqlite") and parsed.database not in (None, "", ":memory:"):
        return parsed.set(drivername="sqlite", database=str(Path(str(parsed.database)).expanduser().absolute()))
    raise InputError(f"store.url = {shown(parsed)!r}: is no store that slimfed knows; {_VALID}")


def shown(url: URL) -> str:
    """The address for screens, logs and JSON: without any password."""
    secret = [key for key in url.query if "pass" in key.lower()]
    return url.difference_update_query(secret).render_as_string(hide_password=True)


def open_engine(url: URL) -> Engine:
    """An engine that has reached its database. Raises ``InputError`` within seconds if it cannot."""
    engine = _sqlite_engine(url) if url.get_backend_name() == "sqlite" else _postgres_engine(url)
    try:
        engine.connect().close()
    except (SQLAlchemyError, OSError) as error:
        engine.dispose()
        raise unreachable(url, error) from None
    return engine


def unreachable(url: URL, error: Exception) -> InputError:
    """The error for a database that does not answer."""
    cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0].strip()
    cause = re.sub(r"^connection (is bad|failed): ", "", without_secrets(cause, url))
    cure = f"; {REBUILD}" if any(sign in cause for sign in DAMAGED) else ""
    return InputError(f"store.url = {shown(url)!r}: the store cannot be reached: {cause}{cure}")


def without_secrets(text: str, url: URL) -> str:
    """``text`` with the address's passwords blanked."""
    for secret in filter(None, [url.password, *(v for k, v in url.query.items() if "pass" in k.lower())]):
        text = text.replace(str(secret), "***")
    return text


def sqlite_reader(file: Path, timeout: float) -> sqlite3.Connection:
    """A connection that only reads an existing SQLite file, also one in a folder that cannot be written.

    Readers of a write-ahead log share an index beside the file, which they may have to make. Where they cannot, the log
    is empty (every writer leaves it so, ``writing``) and the file is read as it is. Raises ``sqlite3.Error``.
    """
    log = file.with_name(file.name + "-wal")
    fixed = not can_write(file) and not (log.exists() and log.stat().st_size)
    mode = "mode=ro&immutable=1" if fixed else "mode=rw" if can_write(file) else "mode=ro"
    connection = sqlite3.connect(
        f"{file.absolute().as_uri()}?{mode}", uri=True, timeout=timeout, check_same_thread=False
    )
    connection.execute("PRAGMA query_only = ON")
    return connection


def can_write(file: Path) -> bool:
    """True if the file and its folder can be written, which SQLite needs; a missing file counts as its folder."""
    return os.access(file.parent, os.W_OK) and (not file.exists() or os.access(file, os.W_OK))


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction that writes. SQLite waits for other writers at its start rather than fail halfway through."""
    with engine.connect().execution_options(slimfed_writes=True) as connection:
        with connection.begin():
            yield connection
        _empty_wal(connection)


def _empty_wal(connection: Connection) -> None:
    """Move what was committed from SQLite's write-ahead log to the file itself, which may be copied or kept alone.

    Readers that still need the log keep it; the next writer moves it.
    """
    if connection.dialect.name == "sqlite":
        raw = connection.connection.dbapi_connection
        assert isinstance(raw, sqlite3.Connection)
        with suppress(sqlite3.Error):  # the rows are committed, whatever keeps the file itself from growing
            raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _postgres_engine(url: URL) -> Engine:
    return create_engine(
        url, pool_size=2, pool_pre_ping=True, connect_args={"connect_timeout": CONNECT_SECONDS}, hide_parameters=True
    )


def _sqlite_engine(url: URL) -> Engine:
    file = Path(str(url.database))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unreachable(url, error) from None
    if file.exists() and not can_write(file):
        return create_engine(url, creator=lambda: sqlite_reader(file, LOCK_SECONDS), hide_parameters=True)
    engine = create_engine(url, connect_args={"timeout": LOCK_SECONDS}, hide_parameters=True)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    """WAL, so that readers never block the writer; foreign keys; explicit BEGIN, so that DDL rolls back."""
    connection.isolation_level = None
    _keep_log(connection)
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")


def _keep_log(connection: sqlite3.Connection) -> None:
    """Turn on the write-ahead log.

    SQLite does not wait for a lock here: where two processes open a new file at once, one of them is refused at once.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
            time.sleep(_PAUSE_SECONDS)


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("slimfed_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
