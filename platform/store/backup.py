"""A consistent copy of an SQLite store, made by SQLite while other processes write."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from slimfed.clients.errors import InputError
from slimfed.platform.store.database import LOCK_SECONDS, REBUILD, sqlite_reader
from slimfed.platform.store.writer import Store

_ALL_PAGES = -1
_SOUND = "ok"


def back_up(store: Store, target: Path) -> None:
    """Copy the store into ``target``, which appears only when it is complete.

    Raises ``InputError`` if it exists or cannot be written, or for PostgreSQL, which has tools of its own.
    """
    if store.url.get_backend_name() != "sqlite":
        raise InputError(f"the store {store.address!r} is PostgreSQL: use pg_dump, which copies it while it runs")
    if target.exists():
        raise InputError(f"{str(target)!r}: exists already; name a new file")
    if not target.parent.is_dir():
        raise InputError(f"{str(target)!r}: there is no such folder")
    aside = target.with_name(f".{target.name}-{os.getpid()}")
    try:
        with (
            closing(sqlite_reader(Path(str(store.url.database)), LOCK_SECONDS)) as source,
            closing(sqlite3.connect(aside)) as copy,
        ):
            source.backup(copy, pages=_ALL_PAGES)
            copy.execute("PRAGMA journal_mode = DELETE").fetchall()
            found = [str(fault) for (fault,) in copy.execute("PRAGMA quick_check(1)")]
        if found != [_SOUND]:
            raise InputError(f"the store {store.address!r} is damaged ({found[0]}); {REBUILD}")
        aside.replace(target)
    except (OSError, sqlite3.Error) as error:
        raise InputError(f"the store {store.address!r} cannot be copied to {str(target)!r}: {error}") from None
    finally:
        aside.unlink(missing_ok=True)
