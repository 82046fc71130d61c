"""The columns of a file of text, before a job names them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimfed.clients.data.readers.files import find_split, read_file
from slimfed.clients.sources.lines import read_lines
from slimfed.clients.spec import DataSpec

_DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Preview:
    """``columns``: every column with all its values. ``delimiter``: of a CSV file. ``file``: its name.

    ``divided``: there is no test file, so that rows are held out as test split.
    """

    file: str
    columns: Mapping[str, list[Any]]
    delimiter: str
    divided: bool

    @property
    def rows(self) -> int:
        """Their number."""
        return len(next(iter(self.columns.values()), ()))


def preview(path: str) -> Preview:
    """The file ``path``, or the train file of that folder. Raises ``InputError`` if it cannot be read."""
    place = Path(path).expanduser()
    file = place if place.is_file() else find_split(path, place, "train")
    spec = DataSpec(path=path, delimiter=_delimiter(file))
    named = read_file(spec, file, ())
    found = read_file(spec, file, tuple(named.columns))
    divided = file == place or not any(each.is_file() for each in place.glob("test.*"))
    return Preview(file.name, found.columns, spec.delimiter, divided)


def _delimiter(file: Path) -> str:
    """The one that gives the first line of a CSV file most cells; a comma for every other file."""
    if file.suffix != ".csv":
        return ","
    with file.open("rb") as stream:
        header = next(iter(read_lines(stream, file.name)), "")
    return max(_DELIMITERS, key=lambda each: header.count(each))
