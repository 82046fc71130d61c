"""A folder's files are read only if they lie in it."""

from pathlib import Path

from slimfed.clients.errors import InputError


def check_inside(folder: Path, file: Path, field: str) -> None:
    """Raises ``InputError`` if ``file`` is a link out of ``folder``: whoever made it may mean files of others."""
    target = file.resolve()
    if not target.is_relative_to(folder.resolve()):
        raise InputError(f"{field} = {str(folder)!r}: {file.name} points outside the folder; copy the file into it")
