"""Loading of labelled text: from slimfed itself, from files, or from the hub."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from slimfed.clients.builtin.commands import Row, commands
from slimfed.clients.data.checking import Checked, checked
from slimfed.clients.data.columns import BUILTIN, Columns, Task, columns_of
from slimfed.clients.data.division import TEST_SHARE, Division, held_out_rows
from slimfed.clients.data.labels import label_names, label_order, with_labels
from slimfed.clients.data.readers.files import ENDINGS, find_split, read_file, split_files
from slimfed.clients.data.readers.rows import Rows
from slimfed.clients.data.split import Dropped, TextSplit
from slimfed.clients.errors import InputError
from slimfed.clients.sources.hub import is_local
from slimfed.clients.spec import DataSpec, PartitionSpec

_SPLITS = ("train", "test")


@dataclass(frozen=True)
class TextData:
    """A training and a test split, and the names of the classes (``None`` for causal-lm).

    ``validation``: the split that rounds are evaluated on, if ``data.validation = "use"``. ``division``: how one file
    was divided; None if the splits have files of their own.
    """

    train: TextSplit
    test: TextSplit
    labels: tuple[str, ...] | None
    validation: TextSplit | None = None
    division: Division | None = None

    @property
    def judge(self) -> TextSplit:
        """The split that rounds are evaluated on."""
        return self.test if self.validation is None else self.validation

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """The empty rows that were left out of each split."""
        splits = (self.train, self.test, self.validation)
        return tuple(each.dropped for each in splits if each is not None and each.dropped is not None)


def load_data(spec: DataSpec, task: Task, seed: int = 0) -> TextData:
    """Load the training and the test split of ``spec``, and its validation split if ``spec.validation`` is "use".

    Files are read anew every time, and nothing is written beside them. A cell of a CSV or TSV file is the text that
    stands there; JSON and Parquet values have their types. One file is divided by ``spec.test_share`` and ``seed``
    (``division.py``). Labels are numbered in order: the source's own order of classes if it has one, else whole numbers
    by value and texts by alphabet. Rows with an empty cell in a needed column are refused or left out, as
    ``spec.empty`` says. ``builtin:commands`` has the pair prompt and completion for causal-lm and uses it unless the
    spec names columns.

    Raises :class:`InputError` for a missing folder, file, column or split, rows that do not fit their header, a value
    that is not text, a label that the training split does not have, and a hub that does not answer.
    """
    columns = columns_of(spec, task)
    splits, division = _splits(spec, columns, seed)
    if columns.label is None:
        return _text_data([found.split for found in splits], None, division)
    train = splits[0].rows
    known = label_order(columns.label, train, label_names(spec, columns.label, train))
    judge = "the training split" if division is None else "the training split, drawn by the seed (try another),"
    labelled = [with_labels(spec, columns.label, each, known, judge) for each in splits]
    return _text_data(labelled, known, division)


def _text_data(splits: Sequence[TextSplit], labels: tuple[str, ...] | None, division: Division | None) -> TextData:
    train, test, *validation = splits
    return TextData(train, test, labels, validation[0] if validation else None, division)


def load_own_data(spec: DataSpec, task: Task, folder: Path, labels: Sequence[str] | None) -> TextData:
    """The text that a real device keeps in ``folder``: a train file, and a test file if it has one (else no rows).

    ``spec`` names the columns, ``labels`` the classes in the server's order; the server's data path is ignored. Raises
    :class:`InputError` for files that cannot be read, and for labels that the server does not have.
    """
    own = spec.model_copy(update={"path": str(folder), "partition": PartitionSpec(), "test_share": None})
    columns = columns_of(own, task)
    splits = []
    for name in _SPLITS:
        if name == "test" and not any((folder / (name + ending)).is_file() for ending in ENDINGS):
            splits.append(TextSplit((), None, None if columns.label is None else np.zeros(0, dtype=np.int64)))
            continue
        found = checked(own, read_file(own, find_split(own.path, folder, name), columns.names), columns)
        splits.append(found.split if columns.label is None else with_labels(own, columns.label, found, labels or ()))
    return TextData(splits[0], splits[1], None if labels is None else tuple(labels))


def load_test(spec: DataSpec, task: Task, labels: Sequence[str] | None, seed: int | None = None) -> TextSplit:
    """Text for the evaluation of a finished model: the file ``spec.path``, or the test split of that data set.

    ``seed``: of the run that trained on the file ``spec.path``, whose test rows alone are then used; None: all rows.
    ``labels``: the model's own, in order; the text's labels are numbered in this order. Raises :class:`InputError` as
    :func:`load_data` does, and for a label that the model does not have.
    """
    columns = columns_of(spec, task)
    file = Path(spec.path).expanduser()
    if file.is_file() and seed is None:
        columns = replace(columns, owner=None)
        found = checked(spec, read_file(spec, file, columns.names), columns)
    else:
        found = _splits(spec.model_copy(update={"validation": "off"}), columns, seed or 0)[0][1]
    return found.split if columns.label is None else with_labels(spec, columns.label, found, labels or (), "the model")


# Reading: every source ends as the checked rows of two splits, or three with a validation split.


def _splits(spec: DataSpec, columns: Columns, seed: int) -> tuple[list[Checked], Division | None]:
    """Training, test and perhaps validation split; how one file was divided."""
    file = _one_file(spec)
    if file is not None:
        return _divided(spec, checked(spec, read_file(spec, file, columns.names), columns), columns, seed)
    needed = (columns, *(replace(columns, owner=None),) * 2)  # only training rows need owners
    return [checked(spec, rows, wanted) for rows, wanted in zip(_read(spec, columns), needed, strict=False)], None


def _one_file(spec: DataSpec) -> Path | None:
    """The file whose rows are to be divided; None if the splits have files of their own, or are no files."""
    place = Path(spec.path).expanduser()
    local = not spec.path.startswith("builtin:") and is_local(spec.path)
    if local and place.is_file():
        return place
    if spec.test_share is None:
        return None
    if not local:
        raise InputError(
            f'data.test_share = {spec.test_share:g}: data.path = "{spec.path}" has a test split; leave it out'
        )
    train = find_split(spec.path, place, "train")
    if there := split_files(place, "test"):
        raise InputError(
            f'data.test_share = {spec.test_share:g}: data.path = "{spec.path}" has {there[0].name}; leave out one of '
            "the two"
        )
    return train


def _divided(spec: DataSpec, found: Checked, columns: Columns, seed: int) -> tuple[list[Checked], Division]:
    """The rows of one file as two splits."""
    share = TEST_SHARE if spec.test_share is None else spec.test_share
    labels = None if columns.label is None else label_names(spec, columns.label, found.rows)
    rows = len(found.split)
    test = held_out_rows(rows, share, seed, labels, found.split.owner)
    train = np.setdiff1d(np.arange(rows), test)
    division = Division(found.rows.name, len(train), len(test), share, found.split.owner is not None)
    parts = [_part(found, each.tolist()) for each in (train, test)]
    return [replace(parts[0], split=replace(parts[0].split, dropped=found.split.dropped)), parts[1]], division


def _part(found: Checked, rows: Sequence[int]) -> Checked:
    """The given rows of a split."""
    split = found.split
    text, prompt, owner = (
        None if column is None else [column[row] for row in rows] for column in (split.text, split.prompt, split.owner)
    )
    return Checked(TextSplit(text or (), prompt, None, owner), found.rows.only(rows))


def _read(spec: DataSpec, columns: Columns) -> Sequence[Rows]:
    if spec.path.startswith("builtin:"):
        if spec.path not in BUILTIN:
            raise InputError(f'data.path = "{spec.path}" is not built in; valid are {", ".join(BUILTIN)}')
        return [_command_rows(name, rows) for name, rows in zip(_SPLITS, commands(), strict=True)]
    if is_local(spec.path) or Path(spec.path).suffix in ENDINGS:
        folder = Path(spec.path).expanduser()
        names = (*_SPLITS, "validation") if spec.validation == "use" else _SPLITS
        files = [find_split(spec.path, folder, split) for split in names]
        return [read_file(spec, file, columns.names) for file in files]
    from slimfed.clients.data.readers.hub import read_hub  # brings `datasets`, which files do not need

    return read_hub(spec.path, _SPLITS, columns.names)


def _command_rows(name: str, rows: Sequence[Row]) -> Rows:
    texts = [row.text for row in rows]
    return Rows(
        name,
        {
            "text": texts,
            "label": [row.label for row in rows],
            "user": [row.user for row in rows],
            "prompt": texts,
            "completion": [row.answer for row in rows],
        },
    )
