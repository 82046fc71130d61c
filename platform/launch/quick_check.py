"""The checks of a job that take well under a second: names, limits, and the files that it names. No torch.

What needs the model is checked by the process that starts the run (``preflight.py``).
"""

from collections.abc import Callable
from pathlib import Path

from slimfed.clients.data.readers.files import ENDINGS, find_split
from slimfed.clients.data.text import load_data
from slimfed.clients.errors import InputError
from slimfed.clients.models.location import BUILTIN, look_for
from slimfed.clients.spec import DataSpec
from slimfed.platform.fleet.profiles import load_profile
from slimfed.platform.job.compatibility import problems_of_run
from slimfed.platform.job.job import Job

_READ_BYTES = 20_000_000
"""Text of so many bytes is read at once; more is only looked for."""


def quick_check(job: Job) -> None:
    """Raise ``InputError`` with one line for each thing that is wrong with ``job``, text that is small included."""
    problems = quick_problems(job)
    if not problems and is_small(job.data):
        problems += _of(lambda: load_data(job.data, job.model.task, job.seed))
    if problems:
        raise InputError("\n".join(problems))


def quick_problems(job: Job) -> list[str]:
    """A line for each thing that is wrong, without reading a file of text: cheap enough for every change of a form."""
    problems = _of(lambda: load_profile(job.fleet.profile)) + problems_of_run(job)
    return problems + _of(lambda: _look_for_text(job.data)) + _of(lambda: look_for(job.model))


def _of(check: Callable[[], object]) -> list[str]:
    try:
        check()
    except InputError as error:
        return str(error).splitlines()
    return []


def _look_for_text(data: DataSpec) -> None:
    """A folder must have its training file. Built-in text and data sets of a hub are checked when they are opened."""
    place = _place(data.path)
    if place is not None and not place.is_file():
        find_split(data.path, place, "train")


def _place(path: str) -> Path | None:
    """The file or folder on this machine that ``path`` means; None for a built-in name or an id of a hub."""
    if path.startswith(BUILTIN):
        return None
    from slimfed.clients.sources.hub import is_local  # brings the hub's library

    return Path(path).expanduser() if is_local(path) else None


def is_small(data: DataSpec) -> bool:
    """True for built-in text and small files, which are read in well under a second; Parquet brings `datasets`."""
    place = _place(data.path)
    if place is None:
        return data.path.startswith(BUILTIN)
    files = [place, *(place / (split + ending) for split in ("train", "validation", "test") for ending in ENDINGS)]
    there = [file for file in files if file.is_file()]
    return sum(file.stat().st_size for file in there) <= _READ_BYTES and all(f.suffix != ".parquet" for f in there)
