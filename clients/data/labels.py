"""Labels: their names as they stand in a file, their order, and the number of each row's."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from slimfed.clients.data.checking import Checked, is_unicode
from slimfed.clients.data.readers.rows import Rows
from slimfed.clients.data.split import TextSplit
from slimfed.clients.errors import InputError
from slimfed.clients.spec import DataSpec

_WHOLE_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)")


def with_labels(
    spec: DataSpec, column: str, found: Checked, labels: Sequence[str], judge: str = "the server"
) -> TextSplit:
    """The split with the position in ``labels`` of every row's label; ``judge``: where ``labels`` come from."""
    position = {label: index for index, label in enumerate(labels)}
    numbers = []
    for row, name in enumerate(label_names(spec, column, found.rows)):
        if name not in position:
            raise InputError(
                f'data.label = "{column}": {found.rows.place(row)} of {found.rows.name} of "{spec.path}" has label '
                f"{name!r:.50}, which {judge} does not have; valid: {', '.join(map(repr, labels[:20]))}"
            )
        numbers.append(position[name])
    return replace(found.split, label=np.array(numbers, dtype=np.int64))


def label_names(spec: DataSpec, column: str, rows: Rows) -> list[str]:
    """The name of every row's label: the text that stands in the file."""
    names, classes = [], rows.class_names.get(column)
    for row, value in enumerate(rows.columns[column]):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if whole and classes is not None and 0 <= value < len(classes):
            names.append(classes[value])
        elif isinstance(value, bool):
            names.append(str(value).lower())  # as JSON writes it
        elif (whole and classes is None) or (isinstance(value, str) and is_unicode(value)):
            names.append(str(value))
        else:
            raise InputError(
                f'data.label = "{column}": {rows.place(row)} of {rows.name} of "{spec.path}" is {value!r:.50}, '
                "must be a text or an integer"
            )
    return names


def label_order(column: str, rows: Rows, names: Sequence[str]) -> tuple[str, ...]:
    """The different names in order; ``names``: those of all rows."""
    classes = rows.class_names.get(column)
    if classes is not None:
        present = set(names)
        return tuple(name for name in classes if name in present)
    if rows.typed:
        numbers = {str(value) for value in rows.columns[column] if isinstance(value, int)}
    else:  # a file of cells has no numbers, only texts that may all look like one
        numbers = set(names) if all(_WHOLE_NUMBER.fullmatch(name) for name in set(names)) else set()
    return tuple(sorted(set(names), key=lambda name: (0, int(name), "") if name in numbers else (1, 0, name)))
