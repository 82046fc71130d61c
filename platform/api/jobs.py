"""Jobs from files, tables and settings."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from slimfed.clients.errors import InputError
from slimfed.platform.job.job import Job, demo_document, given_fields, located, parse_job
from slimfed.platform.job.overrides import merge, parse_sets, read_toml

JobSource = Job | Mapping[str, Any] | str | Path | None
"""A ``Job``, nested tables as in a job file, the path of a job file, or None for the built-in demo."""

Settings = Mapping[str, Any] | Iterable[str]
"""Fields to override: ``{"training.rounds": 5}``, or lines such as ``training.rounds=5``."""


def load_job(source: JobSource = None, set: Settings = ()) -> Job:
    """A checked job with every field filled in.

    ``set`` overrides fields, as ``--set`` does on the command line. A preset (``method.name``) sets defaults of fields
    that a file or tables leave out; a ``Job`` has every field, so its method cannot be changed. Relative paths start at
    the job file's folder, or else at the working directory. Raises ``InputError`` with one line for each invalid field.
    """
    changes = located(tables(set), Path.cwd())
    if isinstance(source, Job):
        if "name" in changes.get("method", {}):
            raise InputError(
                "set = method.name: the fields of the job's method are filled in already; "
                "give the job file or the tables that the job was made of"
            )
        return parse_job(merge(given_fields(source), changes)) if changes else source
    return parse_job(merge(_document(source), changes))


def _document(source: Mapping[str, Any] | str | Path | None) -> dict[str, Any]:
    if source is None:
        return demo_document()
    if isinstance(source, Mapping):
        return located(dict(source), Path.cwd())
    file = Path(source)
    return located(read_toml(file, "job file"), file.absolute().parent)


def tables(settings: Settings) -> dict[str, Any]:
    """The settings as nested tables. Raises ``InputError`` for what is neither a mapping by names nor lines."""
    if isinstance(settings, str):
        raise InputError(f"set = {settings!r}: must be a mapping of fields, or a list of lines such as this one")
    if not isinstance(settings, Mapping):
        return parse_sets(settings)
    result: dict[str, Any] = {}
    for field, value in settings.items():
        if not isinstance(field, str):
            raise InputError(f"set: {field!r} is no field; name it as text, such as 'training.rounds'")
        nested = value
        for name in reversed(field.split(".")):
            nested = {name: nested}
        result = merge(result, nested)
    return result
