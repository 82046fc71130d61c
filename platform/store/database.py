"""Reaching a database: SQLite as a file in the home, or PostgreSQL by URL."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from slimfed.clients.errors import InputError

CONNECT_SECONDS = 5
"""Seconds to try to reach a server."""

LOCK_SECONDS = 30
"""Seconds to wait for another writer of an SQLite file."""

_VALID = "valid: sqlite, sqlite:///PATH, postgresql+psycopg://USER:PASSWORD@HOST/NAME"
_POSTGRES = ("postgres", "postgresql", "postgresql+psycopg")


def resolve_url(url: str, home: Path) -> URL:
    """``store.url`` of a job as a database address. Raises ``InputError`` for one that slimfed cannot use."""
    if url == "sqlite":
        return URL.create("sqlite", database=str(home.absolute() / "store.db"))
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
    for secret in filter(None, [url.password, *(v for k, v in url.query.items() if "pass" in k.lower())]):
        cause = cause.replace(str(secret), "***")
    cause = re.sub(r"^connection (is bad|failed): ", "", cause)
    return InputError(f"store.url = {shown(url)!r}: the store cannot be reached: {cause}")


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction that writes. SQLite waits for other writers at its start rather than fail halfway through."""
    with engine.connect().execution_options(slimfed_writes=True) as connection, connection.begin():
        yield connection


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
    engine = create_engine(url, connect_args={"timeout": LOCK_SECONDS}, hide_parameters=True)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    """WAL, so that readers never block the writer; foreign keys; explicit BEGIN, so that DDL rolls back."""
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("slimfed_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
