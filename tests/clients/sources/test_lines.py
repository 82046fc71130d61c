"""One rule for lines: a line feed ends one, a carriage return before it belongs to the end, nothing else does."""

from io import BytesIO

import pytest

from slimfed.clients.errors import InputError
from slimfed.clients.sources.lines import LONGEST_BYTES, read_lines, read_texts

OTHERS = "form\x0cfeed, next\x85line, line\u2028and paragraph\u2029separator, vertical\x0btab, file\x1cseparator"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_only_line_feeds_end_a_line(end: str) -> None:
    content = f"\ufeff{OTHERS}{end}{end}  two{end}three"
    assert read_texts(BytesIO(content.encode()), "x") == [OTHERS, "", "  two", "three"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"one\ntwo\xff\n", "x: line 2, byte 4 is 0xff, which is not UTF-8; save it as UTF-8"),
        (b"one\rtwo\r", "x: line 1 has a carriage return without a line feed"),
        (b"one\n\xed\xa0\x80\n", "x: line 2, byte 1 is 0xed"),
        ("one\n".encode("utf-16"), "x: is UTF-16 text"),
        (b"\x1f\x8b\x08\x00", "x: is compressed with gzip"),
        (b"\xfd7zXZ\x00\x00", "x: is compressed with xz"),
        (b"PK\x03\x04", "x: is a zip archive"),
    ],
)
def test_what_is_no_text_is_named_with_its_place(content: bytes, words: str) -> None:
    with pytest.raises(InputError) as error:
        read_texts(BytesIO(content), "x")
    assert str(error.value).startswith(words)


def test_a_line_without_end_is_not_read_into_memory() -> None:
    class Endless(BytesIO):
        def readline(self, size: int | None = -1) -> bytes:
            assert size is not None
            assert 0 < size <= LONGEST_BYTES + 1
            return b"a" * size

    with pytest.raises(InputError, match="x: line 1 is longer than 64 MiB"):
        list(read_lines(Endless(), "x"))
