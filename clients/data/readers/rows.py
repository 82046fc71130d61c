"""The rows of one split, as they are read and before they are checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Rows:
    """Columns of values, and where each row is in its source.

    ``name``: of the file or split. ``columns``: the values of every column that was asked for, and an empty list for
    each of the others. ``numbers``: of every row, the number of its first line, or (``unit`` = "row") its own number,
    which is counted from 1 if none is given. ``class_names``: by column, the names of integer labels, if the source has
    them. ``typed``: values are of the types of the source; else every value is the text of a cell.
    """

    name: str
    columns: dict[str, list[Any]]
    numbers: Sequence[int] | None = None
    unit: str = "row"
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    typed: bool = True

    def place(self, row: int) -> str:
        """Where row ``row`` is, such as ``line 7``."""
        return f"{self.unit} {row + 1 if self.numbers is None else self.numbers[row]}"

    def only(self, rows: Sequence[int]) -> "Rows":
        """The given rows alone, which keep their places."""
        columns = {name: [values[row] for row in rows] if values else [] for name, values in self.columns.items()}
        numbers = [row + 1 if self.numbers is None else self.numbers[row] for row in rows]
        return replace(self, columns=columns, numbers=numbers)
