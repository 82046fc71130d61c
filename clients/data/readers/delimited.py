"""CSV and TSV files: every cell is the text that stands there, whatever it looks like.

CSV cells may be quoted with ``"``, and a quote within is doubled (RFC 4180). TSV has no quoting (IANA
text/tab-separated-values).
"""

import csv
import json
from array import array
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal

from slimfed.clients.data.readers.rows import Rows
from slimfed.clients.errors import InputError
from slimfed.clients.sources.lines import LONGEST_BYTES, read_lines

_OTHER_DELIMITERS = (";", "\t", ",", "|")


def read_delimited(file: Path, where: str, needed: Collection[str], delimiter: str, *, quoted: bool = True) -> Rows:
    """The rows of ``file``, whose first line names the columns; blank lines are no rows.

    Raises ``InputError``, with the number of the line, for a row that has more or fewer cells than the header, a quote
    that is not closed, and what :func:`read_lines` refuses; for a header that names a needed column twice; and for a
    file with another delimiter, with the cure.
    """
    csv.field_size_limit(LONGEST_BYTES)  # of the whole process; the default is 128 KiB
    with file.open("rb") as stream:
        records = _records(read_lines(stream, where), where, delimiter, quoted)
        _, header = next(records, (1, []))
        _check_header(header, where, needed, delimiter, quoted)
        places = {name: header.index(name) for name in needed if name in header}
        columns: dict[str, list[Any]] = {name: [] for name in header}
        lines = array("q")
        for number, cells in records:
            if len(cells) != len(header):
                raise InputError(f"{where}: line {number} {_misfit(len(cells), len(header))}")
            lines.append(number)
            for name, place in places.items():
                columns[name].append(cells[place])
    return Rows(file.name, columns, lines, "line", typed=False)


def _records(lines: Iterator[str], where: str, delimiter: str, quoted: bool) -> Iterator[tuple[int, list[str]]]:
    """Every record that is not blank, with the number of its first line."""
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(f"{where}: line {first} {_fault(error)}") from None
        if cells:
            yield first, cells


def _fault(error: csv.Error) -> str:
    text = str(error)
    if "unexpected end of data" in text:
        return 'opens a quote that is never closed; close it, or write a quote within a quoted cell as ""'
    if "expected after" in text:
        return 'has text after a closing quote; write a quote within a quoted cell as ""'
    if "new-line character" in text:
        return "has a carriage return without a line feed; end lines with a line feed, or with both"
    return f"cannot be read: {text}"


def _misfit(found: int, wanted: int) -> str:
    cure = "quote cells that contain the delimiter, and end no line with one" if found > wanted else "fill the row up"
    return f"has {found} cells, the header has {wanted}; {cure}"


def _check_header(header: list[str], where: str, needed: Collection[str], delimiter: str, quoted: bool) -> None:
    for name in needed:
        if header.count(name) > 1:
            raise InputError(f"{where}: the header has column {name!r} {header.count(name)} times; give each a name")
    if all(name in header for name in needed):
        return
    for other in _OTHER_DELIMITERS:
        if other != delimiter and all(name in delimiter.join(header).split(other) for name in needed):
            cure = f"set data.delimiter = {json.dumps(other)}"
            cure = cure if quoted else f"end its name with .csv and {cure}"
            raise InputError(f"{where}: its cells are separated by {other!r}, not by {delimiter!r}; {cure}")
