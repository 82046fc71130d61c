"""A frame as a CSV file that a spreadsheet shows and does not run."""

from typing import Any

import pandas as pd

from slimfed.clients.plain_text import clean

_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def csv_file(frame: pd.DataFrame) -> bytes:
    """The frame as CSV, UTF-8. Text that a spreadsheet would take for a formula begins with an apostrophe."""
    safe = frame.rename(columns=_cell)
    for place in range(safe.shape[1]):
        column = safe.iloc[:, place]
        if not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_any_dtype(column)):
            safe.isetitem(place, column.map(_cell))
    return safe.to_csv(index=False).encode()


def _cell(value: Any) -> Any:
    """``value``, or if it is text, the text in one line that is no formula; numbers written as text stay."""
    if not isinstance(value, str):
        return value
    text = clean(value)
    formula = value.startswith(_FORMULAS) or text.startswith(_FORMULAS)
    return f"'{text}" if formula and not _number(text) else text


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
