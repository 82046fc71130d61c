"""The filter of devices: what it admits, and what it says of what it cannot read."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as some

from slimfed.strategies.where import FIELDS, parse_where

DEVICE = {"device": 3.0, "class": "jetson-tx2", "memory_gib": 6.0, "up_mbit_s": 10.0, "tags": ("lab", "charging")}


@pytest.mark.parametrize(
    ("text", "admitted"),
    [
        ("memory_gib >= 6", True),
        ("memory_gib>6", False),
        ("memory_gib >= 8 or up_mbit_s == 10", True),
        ("memory_gib >= 8 or up_mbit_s == 10 and device != 3", False),
        ("(memory_gib >= 8 or up_mbit_s == 10) and device == 3", True),
        ("not memory_gib < 6", True),
        ("not not (device < 3)", False),
        ('class == "jetson-tx2"', True),
        ("class != 'jetson-tx2'", False),
        ('"lab" in tags and "phone" not in tags', True),
        ('"lab" not in tags', False),
        ("up_mbit_s < 1.05e1", True),
        ("cores >= 1", False),
        ("not cores >= 1", True),
        ("device > -1", True),
    ],
)
def test_what_is_admitted(text: str, admitted: bool) -> None:
    assert parse_where(text).admits(DEVICE) is admitted


def test_the_fields_that_are_named_are_known() -> None:
    assert parse_where('memory_gib > 1 and ("a" in tags or class == "b")').fields == {"memory_gib", "tags", "class"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ram_gib >= 8", "'ram_gib' is no field; did you mean memory_gib?"),
        ("speed >= 8", "'speed' is no field. Fields are device, class"),
        ("memory_gib >= ", "is compared with a number, not the end"),
        ('memory_gib >= "8"', "is compared with a number"),
        ("class == 8", "a text in quotes"),
        ('class < "a"', "by == or !="),
        ("memory_gib 8", "memory_gib: needs one of"),
        ("memory_gib >= 8 device < 3", "'device' is not expected there"),
        ("(memory_gib >= 8", "a bracket is not closed before the end"),
        ("memory_gib >= 8)", "')' is not expected there"),
        ('"lab"', "a text is asked for as in 'lab' in tags"),
        ("tags == 3", "tags is a list"),
        ("and", "'and' is no field"),
        ("", "a field is missing before the end"),
        ("memory_gib >= 8; import os", "cannot be read at '; import os'"),
        ("__import__('os').system('true')", "cannot be read"),
        ("__import__('os')", "'__import__' is no field"),
        ("memory_gib >= 8GiB", "cannot be read"),
        ("(" * 300 + "device == 1", "more than 50"),
        ("not " * 100 + "device == 1", "more than 50"),
        ("device == 1 or " * 100, "at most 500"),
    ],
)
def test_an_error_names_the_place_and_the_cure(text: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the words are compared below
        parse_where(text)
    assert words in str(caught.value)


@given(some.text(alphabet="()<>=! andornotis8.'\"" + "".join(FIELDS), max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(ValueError):
        assert parse_where(text).admits(DEVICE) in (True, False)
