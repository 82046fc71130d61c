"""The store's revisions: an empty database gets its tables, an older one is upgraded on demand, an unknown one is
refused.

Alembic is imported only to create or upgrade a database, so that commands on a store of the newest revision are quick.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import URL, Connection, Engine, inspect, text

from slimfed.clients.errors import InputError
from slimfed.platform.store.database import shown, writing
from slimfed.platform.store.schema import NEWEST_REVISION, Base

if TYPE_CHECKING:
    from alembic.config import Config

# An arbitrary number, the same in every version of slimfed.
_LOCK = 7_305_106
_TABLE = "alembic_version"


def check_revision(engine: Engine, url: URL) -> None:
    """Create the tables in an empty database; otherwise raise ``InputError`` unless it has the newest revision."""
    if look_at_revision(engine, url) is None:
        migrate(engine, url)


def look_at_revision(engine: Engine, url: URL) -> str | None:
    """The newest revision, or None for an empty database. Raises ``InputError`` for any other; changes nothing."""
    with engine.connect() as connection:
        found = _revision(connection, url)
    if found not in (None, NEWEST_REVISION):
        raise InputError(f"store.url = {shown(url)!r}: the store is of an older slimfed; run `slimfed db upgrade`")
    return found


def migrate(engine: Engine, url: URL) -> tuple[str | None, str]:
    """Bring the database to the newest revision, in one transaction; returns the revisions before and after.

    Raises ``InputError`` if the store was made by a newer slimfed, or not by slimfed's migrations.
    """
    from alembic import command

    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        before = _revision(connection, url)
        if before != NEWEST_REVISION:
            config = alembic_config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    return before, NEWEST_REVISION


def alembic_config() -> "Config":
    """Alembic's configuration with the path of the migrations."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def known_revisions() -> set[str]:
    """Every revision that this slimfed has a migration for."""
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()}


def _revision(connection: Connection, url: URL) -> str | None:
    """The database's revision, None if it is empty. Raises ``InputError`` for one that this slimfed does not know."""
    # Tables are read first, so that tables of a concurrent process are never seen without their revision.
    tables = set(inspect(connection).get_table_names())
    found = _recorded(connection)
    if found is None:
        strangers = tables & set(Base.metadata.tables)
        if strangers:
            names = ", ".join(sorted(strangers))
            raise InputError(f"store.url = {shown(url)!r}: has tables ({names}) that slimfed did not make")
    elif found != NEWEST_REVISION and found not in known_revisions():
        raise InputError(
            f"store.url = {shown(url)!r}: the store was written by a newer slimfed (revision {found}); upgrade slimfed"
        )
    return found


def _recorded(connection: Connection) -> str | None:
    """What Alembic has recorded: one row, or no table at all."""
    if not inspect(connection).has_table(_TABLE):
        return None
    found = connection.scalar(text(f"SELECT version_num FROM {_TABLE}"))
    return None if found is None else str(found)
