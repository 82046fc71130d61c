"""Failures of a database in words: what happened, and what to do. The library's own text is no cause."""

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from slimfed.platform.store.database import CONNECT_SECONDS, DAMAGED, LOCK_SECONDS, REBUILD, shown, without_secrets
from slimfed.platform.store.errors import StoreError

_FAULTS = (
    (
        ("database is locked", "database table is locked"),
        f"another process has kept it locked for {LOCK_SECONDS} s; end that process, or try again",
    ),
    (
        ("readonly database", "read-only transaction"),
        "it can only be read; make its folder writable, or name another SLIMFED_HOME",
    ),
    (("disk is full", "No space left"), "its disk is full; make room"),
    (("disk I/O error",), "its disk does not read or write; check the disk and its mount"),
    (DAMAGED, f"the file is damaged; {REBUILD}"),
    (
        ("no such table", "no such column", "does not exist"),
        "it lacks a table or a column; `slimfed db upgrade` brings it up to date",
    ),
    (
        ("connection", "Connection", "timeout expired", "could not translate host name"),
        f"the database server does not answer (tried for {CONNECT_SECONDS} s); start it, or correct store.url",
    ),
)


def in_words(error: Exception, url: URL) -> str:
    """What happened to the store at ``url``, without password; a failure that is not known keeps its own text."""
    told = without_secrets(str(getattr(error, "orig", None) or error), url)
    first = told.strip().splitlines()[0].strip() if told.strip() else type(error).__name__
    known = next((text for signs, text in _FAULTS if any(sign in told for sign in signs)), None)
    return f"the store {shown(url)!r} failed: {known or first}"


def as_store_error(error: BaseException | None, url: URL) -> StoreError | None:
    """The failure of a database in words; None for any other error."""
    return StoreError(in_words(error, url)) if isinstance(error, DBAPIError) else None
