"""The store's revisions: an empty database is made, an older one upgraded on demand, an unknown one refused."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, inspect, text

from slimfed.clients.errors import InputError
from slimfed.platform.store.database import shown, writing
from slimfed.platform.store.schema import Base

# Any number will do, as long as every slimfed takes the same one.
_LOCK = 7_305_106


def newest_revision() -> str:
    """The revision of this version of slimfed."""
    return str(_scripts().get_current_head())


def check_revision(engine: Engine, url: URL) -> None:
    """Make the tables in an empty database; otherwise raise ``InputError`` unless it has the newest revision."""
    with engine.connect() as connection:
        found = _revision(connection, url)
    if found is None:
        migrate(engine, url)
    elif found != newest_revision():
        raise InputError(f"store.url = {shown(url)!r}: the store is of an older slimfed; run `slimfed db upgrade`")


def migrate(engine: Engine, url: URL) -> tuple[str | None, str]:
    """Bring the database to the newest revision, in one transaction; returns the revisions before and after.

    Raises ``InputError`` if a newer slimfed made the store, or something else than slimfed's migrations.
    """
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        before = _revision(connection, url)
        if before != newest_revision():
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    return before, newest_revision()


def _revision(connection: Connection, url: URL) -> str | None:
    """The database's revision, None if it is empty. Raises ``InputError`` for one that this slimfed does not know."""
    # The tables first: another process that makes them meanwhile then shows its revision too, never tables alone.
    strangers = set(inspect(connection).get_table_names()) & set(Base.metadata.tables)
    found = MigrationContext.configure(connection).get_current_revision()
    if found is None:
        if strangers:
            tables = ", ".join(sorted(strangers))
            raise InputError(f"store.url = {shown(url)!r}: has tables ({tables}) that slimfed did not make")
    elif found not in {script.revision for script in _scripts().walk_revisions()}:
        raise InputError(
            f"store.url = {shown(url)!r}: the store was written by a newer slimfed (revision {found}); upgrade slimfed"
        )
    return found


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())
