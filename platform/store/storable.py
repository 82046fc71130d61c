"""Values that every database takes: the last limit before a row is written, whoever made it.

PostgreSQL refuses integers beyond a column's bits, texts beyond a column's length, NUL characters and halves of
surrogate pairs; SQLite refuses integers beyond 64 bits and stores NaN as NULL. A refused row would end the run. So what
is too large is stored as the largest value, what is no number as NULL, and text as plain text.
"""

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, Float, Integer, String, Text

from slimfed.clients.plain_text import clean, clean_lines
from slimfed.platform.store.schema import Base

_PATHS = ("folder", "path")
"""Names of folders on this machine, which must stay what they are."""

MOST_INTEGER = 2**31 - 1
"""The largest number of PostgreSQL's INTEGER."""

MOST_BIG_INTEGER = 2**53
"""The largest stored count of bytes: exact as a float, and a thousand of them can be added within 64 bits."""


def storable(table: type[Base], row: Mapping[str, Any]) -> dict[str, Any]:
    """``row`` with every value within the limits of its column in ``table``. Expressions of SQL stay as they are."""
    columns = table.__table__.columns
    return {name: _limited(columns[name], value) for name, value in row.items()}


def _limited(column: Any, value: Any) -> Any:
    kind = column.type
    if hasattr(value, "item"):  # a number of numpy, which no database takes
        value = value.item()
    if isinstance(kind, Integer) and isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return _whole(value, MOST_BIG_INTEGER if isinstance(kind, BigInteger) else MOST_INTEGER, column.nullable)
    if isinstance(kind, Float) and isinstance(value, int | float | Decimal):
        return _real(value, column.nullable)
    if column.name in _PATHS and isinstance(value, str) and value.encode(errors="replace").decode() == value:
        return value
    if isinstance(kind, Text) and isinstance(value, str):
        return clean_lines(value)
    if isinstance(kind, String) and isinstance(value, str):
        return clean(value, kind.length or 200)
    return value


def _whole(value: float | Decimal, most: int, nullable: bool) -> int | None:
    if isinstance(value, float) and math.isnan(value):
        return None if nullable else 0
    return int(min(max(value, -most), most))


def _real(value: float | Decimal, nullable: bool) -> float | None:
    """A Python float; NULL where it is not finite. In a column without NULL, what is no number counts as infinite."""
    try:
        number = float(value)
    except OverflowError:  # a whole number beyond every float
        number = math.inf
    if math.isfinite(number):
        return number
    return None if nullable else math.inf if math.isnan(number) else number
