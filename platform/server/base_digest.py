"""The hash of a run's base, so that a run is never continued or exported with another base of the same name."""

import json
import os

from slimfed.clients.errors import InputError
from slimfed.clients.export.source import digest
from slimfed.clients.models.loading import LoadedModel
from slimfed.clients.spec import ModelSpec
from slimfed.platform.home import RunFolder


def pin_base(folder: RunFolder, spec: ModelSpec, base: LoadedModel) -> None:
    """Write the hash of a run's base before its first round; later, compare the base with it.

    Raises ``InputError`` if the base is not the one that the run began with.
    """
    found = check_base(folder, spec, base)
    if not folder.base.exists():
        aside = folder.base.with_suffix(f".{os.getpid()}")
        document = {"path": spec.path, "revision": spec.revision, "sha256": found, "origin": base.origin}
        aside.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        aside.rename(folder.base)


def check_base(folder: RunFolder, spec: ModelSpec, base: LoadedModel) -> str:
    """The hash of a base's weights. Raises ``InputError`` if the run in ``folder`` began with others.

    A run that has not begun, or of an earlier version, has no hash to compare with.
    """
    found = digest(base)
    if not folder.base.exists():
        return found
    try:
        began = json.loads(folder.base.read_bytes())["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{str(folder.base)!r} cannot be read: what the run's base was is not known; delete the file if "
            f"model.path = {spec.path!r} is the base that it began with"
        ) from None
    if found != began:
        raise InputError(
            f"model.path = {spec.path!r}: is not the base that run {folder.path.name} began with (SHA-256 of its "
            f"weights was {began[:12]}, is {found[:12]}); put the old one back there"
        )
    return found
