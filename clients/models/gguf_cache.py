"""Where a GGUF file is dequantised to: known from its digest alone, without torch."""

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Literal

from slimfed.clients.errors import InputError

Precision = Literal["fp32", "bf16", "fp16"]
ENDING = ".gguf"
_VERSION = 1  # of what is written: a change makes a new folder


def is_gguf(path: str) -> bool:
    """True if ``model.path`` means a GGUF file."""
    return path.endswith(ENDING)


def check_file(file: Path) -> None:
    """Raise ``InputError`` unless ``file`` is there and begins as a GGUF file does."""
    if not file.is_file():
        raise InputError(f'model.path = "{file}": there is no such file')
    with file.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise InputError(f'model.path = "{file}": is no GGUF file, whatever its name says')


def cached_folder(file: Path) -> Path | None:
    """The folder of a file that was dequantised before; None if there is none."""
    if not file.is_file():
        return None
    folder = folder_of(sha256_of(file))
    return folder if folder.is_dir() else None


def folder_of(sha256: str) -> Path:
    """The folder in the user's cache (``SLIMFED_CACHE``; default ``~/.cache/slimfed``) for a file of this digest."""
    named = os.environ.get("SLIMFED_CACHE")
    cache = Path(named).expanduser() if named else Path.home() / ".cache" / "slimfed"
    return cache / "gguf" / f"{sha256[:32]}-{_VERSION}"


def sha256_of(file: Path) -> str:
    """Of the file as it is now: it is read again if its size or its time has changed."""
    state = file.stat()
    return _digest(file, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=8)
def _digest(file: Path, _size: int, _time: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
