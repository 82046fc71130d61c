"""Check that files are inside their folder."""

from pathlib import Path

from slimfed.clients.errors import InputError


def check_inside(folder: Path, file: Path, field: str) -> None:
    """Raise ``InputError`` if ``file`` is a link out of ``folder``, which could expose other files.

    A snapshot in a hub's cache may be given as ``folder``: its files are links into the ``blobs`` of the same item.
    """
    target, inside = file.resolve(), folder.resolve()
    allowed = [inside] if inside.parent.name != "snapshots" else [inside, inside.parent.parent / "blobs"]
    if not any(target.is_relative_to(place) for place in allowed):
        raise InputError(f"{field} = {str(folder)!r}: {file.name} points outside the folder; copy the file into it")
