"""Files that a page was given, kept in the home, where a run that needs them finds them later."""

import hashlib
import os
import re
from pathlib import Path

from slimfed.clients.errors import InputError
from slimfed.dashboard.access import login

FOLDER = "uploads"


def keep(home: Path, name: str, content: bytes) -> Path:
    """The path of ``content`` in the home. Equal contents of one name are one file. Raises ``InputError``."""
    login.check_operator()
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(name).name).lstrip(".-")[-80:] or "file"
    folder = home.absolute() / FOLDER / hashlib.sha256(content).hexdigest()[:12]
    file, begun = folder / plain, folder / f".{plain}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not file.exists():
            begun.write_bytes(content)
            begun.replace(file)
    except OSError as error:
        raise InputError(f"{str(folder)!r}: the file cannot be kept there ({error.strerror})") from None
    return file
