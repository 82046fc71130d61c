"""The existing store, for commands that only read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from slimfed.clients.errors import InputError
from slimfed.platform.home import home, looked_for_runs, store_url
from slimfed.platform.store.database import can_write, open_engine, resolve_url, shown
from slimfed.platform.store.writer import Store

if TYPE_CHECKING:
    from slimfed.platform.job.job import Job


@contextmanager
def reading(job: "Job | None" = None, place: Path | None = None) -> Iterator[Store | None]:
    """Context with the existing store; None if the SQLite file does not exist (it is not created).

    ``job``: the one whose store it is, if it names one. ``place``: folder of the runs; None: the default one.
    """
    place = place or home()
    url = resolve_url(store_url(job), place)
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
        yield None
        return
    with Store.open(store_url(job), place) as store:
        yield store


def check_store(job: "Job", place: Path) -> None:
    """The store of a new run of ``job`` must be usable, and ``place`` writable. Nothing is created.

    Raises ``InputError`` within seconds.
    """
    from slimfed.platform.store.revisions import look_at_revision

    if not can_write(nearest_existing(place) / "run"):
        raise InputError(f"SLIMFED_HOME = {str(place)!r}: cannot be written; name a folder that can")
    url = resolve_url(store_url(job), place)
    file = Path(str(url.database))
    if url.get_backend_name() == "sqlite" and not can_write(nearest_existing(file.parent) / file.name):
        raise InputError(f"store.url = {shown(url)!r}: cannot be written; make it writable or name another")
    if url.get_backend_name() == "sqlite" and not file.exists():
        return
    engine = open_engine(url)
    try:
        look_at_revision(engine, url)
    finally:
        engine.dispose()


def nearest_existing(folder: Path) -> Path:
    """``folder``, or the nearest folder above it that exists."""
    return next(each for each in (folder, *folder.parents) if each.exists())


@contextmanager
def existing(job: "Job | None" = None) -> Iterator[Store]:
    """Context with the existing store. Raises ``InputError`` if there is none."""
    with reading(job) as store:
        if store is None:
            raise InputError(f"there are no runs in {looked_for_runs()}; start one with `slimfed run`")
        yield store
