"""Writing a folder atomically."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slimfed.clients.errors import InputError


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Context with an empty folder, which is renamed to ``folder`` without error, and else deleted.

    Raises ``InputError`` if ``folder`` exists, as nothing is ever overwritten, or if it cannot be made.
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
