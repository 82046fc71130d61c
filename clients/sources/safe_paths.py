"""Check that files are inside their folder."""

from pathlib import Path

from slimfed.clients.errors import InputError


def check_inside(folder: Path, file: Path, field: str) -> None:
    """Raise ``InputError`` if ``file`` is a link out of ``folder``, which could expose other files."""
    target = file.resolve()
    if not target.is_relative_to(folder.resolve()):
        raise InputError(f"{field} = {str(folder)!r}: {file.name} points outside the folder; copy the file into it")
