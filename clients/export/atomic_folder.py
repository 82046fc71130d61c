"""A folder that is complete or not there at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slimfed.clients.errors import InputError


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to write into, which becomes ``folder`` when the block ends without an error, else goes.

    Raises ``InputError`` if ``folder`` exists, so that nothing is ever overwritten, or if it cannot be made.
    """
    if folder.exists():
        raise InputError(f"{str(folder)!r} exists already; name another folder with --out, or remove it")
    aside = folder.parent / f".{folder.name}-{os.getpid()}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)  # left behind by a killed process of the same number
        aside.mkdir()
    except OSError as error:
        raise InputError(f"{str(folder)!r} cannot be written ({error.strerror}); name a folder that can") from None
    try:
        yield aside
        aside.rename(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
