"""JSON files: an object a line, or one list of objects; a value has the type that it is written with."""

import json
from array import array
from codecs import BOM_UTF8
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from slimfed.clients.data.readers.rows import Rows
from slimfed.clients.errors import InputError
from slimfed.clients.sources.lines import read_lines, read_whole

_LARGEST_LIST_BYTES = 2**30
_BEGINNING = 4096
_CURE = "write an object a line, or one list of objects"
_NO_OBJECT = "is no JSON object with the columns as fields"


def read_json(file: Path, where: str, needed: Collection[str]) -> Rows:
    """The rows of ``file``; blank lines are no rows, and a field that an object lacks is ``None``.

    Raises ``InputError``, with the number of the line, for a line that is no JSON object or names a field twice, and
    for what :func:`read_lines` refuses.
    """
    with file.open("rb") as stream:
        if stream.peek(_BEGINNING).removeprefix(BOM_UTF8).lstrip().startswith(b"["):
            return _of_list(file, where, needed, stream)
        lines = enumerate(read_lines(stream, where), start=1)
        objects = ((number, _object(line, f"{where}: line {number}")) for number, line in lines if line.strip())
        columns, numbers = _collect(objects, needed)
    return Rows(file.name, columns, numbers, "line")


def _of_list(file: Path, where: str, needed: Collection[str], stream: BinaryIO) -> Rows:
    if file.stat().st_size > _LARGEST_LIST_BYTES:
        raise InputError(
            f"{where}: is one list of more than {_LARGEST_LIST_BYTES >> 30} GiB; write an object a line, without a list"
        )
    document = _parse(read_whole(stream, where), f"{where}:")
    for row, entry in enumerate(document, start=1):
        if not isinstance(entry, dict):
            raise InputError(f"{where}: row {row} {_NO_OBJECT}")
    columns, _ = _collect(enumerate(document), needed)
    return Rows(file.name, columns)


def _collect(
    objects: Iterable[tuple[int, dict[str, Any]]], needed: Collection[str]
) -> tuple[dict[str, list[Any]], Sequence[int]]:
    """The columns, and the numbers of the objects."""
    values: dict[str, list[Any]] = {name: [] for name in needed}
    names: dict[str, None] = {}
    numbers = array("q")
    for number, entry in objects:
        numbers.append(number)
        names.update(dict.fromkeys(entry))
        for name, column in values.items():
            column.append(entry.get(name))
    return {name: values.get(name, []) for name in names}, numbers


def _object(line: str, where: str) -> dict[str, Any]:
    entry = _parse(line.rstrip(), where)
    if not isinstance(entry, dict):
        raise InputError(f"{where} {_NO_OBJECT}")
    return entry


def _parse(text: str, where: str) -> Any:
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise InputError(f"{where} cannot be read: it is nested too deeply") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, character {error.colno}" if "\n" in text else f"character {error.colno}"
        raise InputError(f"{where} cannot be read: {error.msg} ({place}); {_CURE}") from None
    except ValueError as error:
        raise InputError(f"{where} cannot be read: {error}; {_CURE}") from None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entry = dict(pairs)
    if len(entry) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"field {next(name for name in names if names.count(name) > 1)!r} comes twice in one object")
    return entry


# One for all lines, since making it takes longer than reading a line.
_DECODER = json.JSONDecoder(object_pairs_hook=_without_repetition)
