"""Lines of a UTF-8 file, by one rule: a line ends at a line feed, or at a carriage return and a line feed.

Other characters that some programs take for the end of a line (a form feed, U+0085, U+2028) are part of a text. A
byte-order mark before the first line is no part of it.
"""

from collections.abc import Iterator
from typing import BinaryIO

from slimfed.clients.errors import InputError

LONGEST_BYTES = 2**26
_BOM = "\ufeff"
_OTHER_KINDS = (
    (b"\x1f\x8b", "is compressed with gzip; unpack it: gzip -d"),
    (b"\xfd7zXZ\x00", "is compressed with xz; unpack it: xz -d"),
    (b"BZh", "is compressed with bzip2; unpack it: bzip2 -d"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd; unpack it: zstd -d"),
    (b"PK\x03\x04", "is a zip archive or a spreadsheet; unpack it, or save it as CSV"),
    (b"\xff\xfe", "is UTF-16 text; save it as UTF-8"),
    (b"\xfe\xff", "is UTF-16 text; save it as UTF-8"),
)


def read_lines(stream: BinaryIO, where: str) -> Iterator[str]:
    """Every line with its end. ``where`` names the file in errors: ``data.path = "x": train.csv``.

    Raises ``InputError``, with the number of the line, for bytes that are not UTF-8 and for a line of more than
    :data:`LONGEST_BYTES`; and for compressed files and UTF-16 text, with what to do.
    """
    number = 0
    while data := stream.readline(LONGEST_BYTES + 1):
        number += 1
        if number == 1:
            _check_kind(data, where)
        if len(data) > LONGEST_BYTES:
            raise InputError(f"{where}: line {number} is longer than {LONGEST_BYTES >> 20} MiB, which no text is")
        line = decode(data, where, number)
        yield line.removeprefix(_BOM) if number == 1 else line


def read_texts(stream: BinaryIO, where: str) -> list[str]:
    """The lines without their ends, a text each. Raises ``InputError`` as :func:`read_lines` does.

    A carriage return elsewhere is refused, since some programs end a line there and others do not.
    """
    texts = [without_end(line) for line in read_lines(stream, where)]
    for number, text in enumerate(texts, start=1):
        if "\r" in text:
            raise InputError(
                f"{where}: line {number} has a carriage return without a line feed; end lines with a line feed, or "
                "with both"
            )
    return texts


def without_end(line: str) -> str:
    """The line without its line feed, and without the carriage return before it."""
    return line.removesuffix("\n").removesuffix("\r") if line.endswith("\n") else line


def decode(data: bytes, where: str, line: int = 1) -> str:
    """``data``, which begins with line ``line``, as UTF-8 text.

    Raises ``InputError`` that begins with ``where`` and names the line, the byte and its place.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        place = error.start - data.rfind(b"\n", 0, error.start)
        raise InputError(
            f"{where}: line {line}, byte {place} is 0x{data[error.start]:02x}, which is not UTF-8; save it as UTF-8"
        ) from None


def read_whole(stream: BinaryIO, where: str) -> str:
    """All text of a file, without a byte-order mark. Raises ``InputError`` as :func:`read_lines` does."""
    data = stream.read()
    _check_kind(data, where)
    return decode(data, where).removeprefix(_BOM)


def _check_kind(beginning: bytes, where: str) -> None:
    for magic, cure in _OTHER_KINDS:
        if beginning.startswith(magic):
            raise InputError(f"{where}: {cure}")
