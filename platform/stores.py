"""The existing store, for commands that only read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from slimfed.clients.errors import InputError
from slimfed.platform.home import home, store_url
from slimfed.platform.store.database import resolve_url
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


@contextmanager
def existing(job: "Job | None" = None) -> Iterator[Store]:
    """Context with the existing store. Raises ``InputError`` if there is none."""
    with reading(job) as store:
        if store is None:
            raise InputError(f"there are no runs in {home()}; set SLIMFED_HOME or start one with `slimfed run`")
        yield store
