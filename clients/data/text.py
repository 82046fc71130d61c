"""Loading of labelled text: from slimfed itself, from files, or from the hub."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from slimfed.clients.builtin.commands import Row, commands
from slimfed.clients.data.conversations import ASSISTANT, Chat, Turn, parse_chat, uses_template, with_system
from slimfed.clients.data.division import TEST_SHARE, Division, held_out_rows
from slimfed.clients.data.readers.files import ENDINGS, find_split, read_file, split_files
from slimfed.clients.data.readers.rows import Rows
from slimfed.clients.errors import InputError
from slimfed.clients.sources.hub import is_local
from slimfed.clients.spec import DataSpec, PartitionSpec

Task = Literal["classification", "causal-lm"]
BUILTIN = ("builtin:commands",)
_SPLITS = ("train", "test")
_SHOWN = 5
_WHOLE_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)")


@dataclass(frozen=True)
class Dropped:
    """The empty rows of a file that were dropped: ``rows`` of ``of`` in all, and where the first of them are."""

    name: str
    rows: int
    of: int
    places: str

    def __str__(self) -> str:
        return (
            f'{self.rows} of {self.of} rows of {self.name} are empty and dropped, as data.empty = "drop" says: '
            f"{self.places}"
        )


@dataclass(frozen=True)
class TextSplit:
    """Examples as columns of equal length.

    ``text``: the text (classification), or the completion to learn (causal-lm). ``prompt``: the text before it, which
    is not in the loss. ``label``: int64 [examples], positions in :attr:`TextData.labels`. ``owner``: its owner
    (training split of a natural partition only). ``dropped``: the empty rows that were left out, if there were any.
    ``chats``: conversations that a chat template writes; ``text`` is then what the assistant says last, and ``prompt``
    is None. ``choices``: of every question, which is then ``prompt``; ``text`` is the right one, at position ``right``.
    """

    text: Sequence[str]
    prompt: Sequence[str] | None = None
    label: np.ndarray | None = None
    owner: Sequence[str] | None = None
    dropped: Dropped | None = None
    chats: Sequence[Chat] | None = None
    choices: Sequence[tuple[str, ...]] | None = None
    right: Sequence[int] | None = None

    @property
    def prompted(self) -> bool:
        """True if something stands before what is to be learnt."""
        return self.prompt is not None or self.chats is not None

    def __len__(self) -> int:
        return len(self.text)


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


@dataclass(frozen=True)
class _Columns:
    """Names of the columns to read; ``None`` where the task has none."""

    text: str
    prompt: str | None
    label: str | None
    owner: str | None
    messages: bool = False
    choices: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All required columns."""
        return tuple(dict.fromkeys(column for _, column in self.fields()))

    def fields(self) -> list[tuple[str, str]]:
        """``(field of the job file, column)`` of all required columns."""
        text = "data.messages" if self.messages else "data.text" if self.prompt is None else "data.completion"
        text = text if self.choices is None else "data.answer"
        named = [
            (text, self.text),
            ("data.prompt", self.prompt),
            ("data.label", self.label),
            ("data.partition.column", self.owner),
            ("data.choices", self.choices),
        ]
        return [(field, column) for field, column in named if column is not None]


@dataclass(frozen=True)
class _Checked:
    """A split with rows that can be used, and its columns as they were read."""

    split: TextSplit
    rows: Rows


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
    columns = _columns(spec, task)
    splits, division = _splits(spec, columns, seed)
    if columns.label is None:
        return _text_data([found.split for found in splits], None, division)
    train = splits[0].rows
    known = _label_order(columns.label, train, _label_names(spec, columns.label, train))
    judge = "the training split" if division is None else "the training split, drawn by the seed (try another),"
    labelled = [_labelled(spec, columns.label, each, known, judge) for each in splits]
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
    columns = _columns(own, task)
    splits = []
    for name in _SPLITS:
        if name == "test" and not any((folder / (name + ending)).is_file() for ending in ENDINGS):
            splits.append(TextSplit((), None, None if columns.label is None else np.zeros(0, dtype=np.int64)))
            continue
        found = _checked(own, read_file(own, find_split(own.path, folder, name), columns.names), columns)
        splits.append(found.split if columns.label is None else _labelled(own, columns.label, found, labels or ()))
    return TextData(splits[0], splits[1], None if labels is None else tuple(labels))


def load_test(spec: DataSpec, task: Task, labels: Sequence[str] | None, seed: int | None = None) -> TextSplit:
    """Text for the evaluation of a finished model: the file ``spec.path``, or the test split of that data set.

    ``seed``: of the run that trained on the file ``spec.path``, whose test rows alone are then used; None: all rows.
    ``labels``: the model's own, in order; the text's labels are numbered in this order. Raises :class:`InputError` as
    :func:`load_data` does, and for a label that the model does not have.
    """
    columns = _columns(spec, task)
    file = Path(spec.path).expanduser()
    if file.is_file() and seed is None:
        columns = replace(columns, owner=None)
        found = _checked(spec, read_file(spec, file, columns.names), columns)
    else:
        found = _splits(spec.model_copy(update={"validation": "off"}), columns, seed or 0)[0][1]
    return found.split if columns.label is None else _labelled(spec, columns.label, found, labels or (), "the model")


def _columns(spec: DataSpec, task: Task) -> _Columns:
    owner = spec.partition.column if spec.partition.kind == "natural" else None
    if task == "classification":
        for field, column in (("messages", spec.messages), ("choices", spec.choices)):
            if column is not None:
                raise InputError(f'data.{field} = "{column}": needs model.task = "causal-lm"')
        return _Columns(spec.text, None, spec.label, owner)
    if spec.choices is not None:
        return _Columns(spec.answer, spec.prompt, None, owner, choices=spec.choices)
    if spec.messages is not None:
        return _Columns(spec.messages, None, None, owner, messages=True)
    if spec.prompt is None and spec.path not in BUILTIN and uses_template(spec):
        raise InputError(f'data.template = "{spec.template}": needs data.messages, or data.prompt and data.completion')
    if spec.prompt is None and spec.path in BUILTIN and spec.text == "text":
        return _Columns("completion", "prompt", None, owner)
    return _Columns(spec.completion or spec.text, spec.prompt, None, owner)


# Reading: every source ends as the checked rows of two splits, or three with a validation split.


def _splits(spec: DataSpec, columns: _Columns, seed: int) -> tuple[list[_Checked], Division | None]:
    """Training, test and perhaps validation split; how one file was divided."""
    file = _one_file(spec)
    if file is not None:
        return _divided(spec, _checked(spec, read_file(spec, file, columns.names), columns), columns, seed)
    needed = (columns, *(replace(columns, owner=None),) * 2)  # only training rows need owners
    return [_checked(spec, rows, wanted) for rows, wanted in zip(_read(spec, columns), needed, strict=False)], None


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


def _divided(spec: DataSpec, found: _Checked, columns: _Columns, seed: int) -> tuple[list[_Checked], Division]:
    """The rows of one file as two splits."""
    share = TEST_SHARE if spec.test_share is None else spec.test_share
    labels = None if columns.label is None else _label_names(spec, columns.label, found.rows)
    rows = len(found.split)
    test = held_out_rows(rows, share, seed, labels, found.split.owner)
    train = np.setdiff1d(np.arange(rows), test)
    division = Division(found.rows.name, len(train), len(test), share, found.split.owner is not None)
    parts = [_part(found, each.tolist()) for each in (train, test)]
    return [replace(parts[0], split=replace(parts[0].split, dropped=found.split.dropped)), parts[1]], division


def _part(found: _Checked, rows: Sequence[int]) -> _Checked:
    """The given rows of a split."""
    split = found.split
    text, prompt, owner = (
        None if column is None else [column[row] for row in rows] for column in (split.text, split.prompt, split.owner)
    )
    return _Checked(TextSplit(text or (), prompt, None, owner), found.rows.only(rows))


def _read(spec: DataSpec, columns: _Columns) -> Sequence[Rows]:
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


# Checking: the guarantees of loaded text.


def _checked(spec: DataSpec, rows: Rows, columns: _Columns) -> _Checked:
    _check_present(spec, rows, columns)
    rows, dropped = _without_empty(spec, rows, columns)
    owner = None if columns.owner is None else [str(value) for value in rows.columns[columns.owner]]
    if columns.messages:
        return _Checked(_of_chats(_conversations(spec, rows, columns.text), owner, dropped), rows)
    if columns.choices is not None and columns.prompt is not None:
        _check_text(spec, rows, "data.prompt", columns.prompt)
        choices, right = _choices(spec, rows, columns.choices, columns.text)
        learnt = [each[place] for each, place in zip(choices, right, strict=True)]
        asked = rows.columns[columns.prompt]
        return _Checked(TextSplit(learnt, asked, None, owner, dropped, choices=choices, right=right), rows)
    for field, column in columns.fields():
        if column in (columns.text, columns.prompt):
            _check_text(spec, rows, field, column)
    text, prompt = rows.columns[columns.text], rows.columns[columns.prompt] if columns.prompt else None
    if prompt is not None and uses_template(spec):
        pairs = zip(prompt, text, strict=True)
        chats = [with_system((Turn("user", asked), Turn(ASSISTANT, said)), spec.system) for asked, said in pairs]
        return _Checked(_of_chats(chats, owner, dropped), rows)
    return _Checked(TextSplit(text, prompt, None, owner, dropped), rows)


def _of_chats(chats: Sequence[Chat], owner: Sequence[str] | None, dropped: Dropped | None) -> TextSplit:
    last = [next(turn.content for turn in reversed(chat) if turn.role == ASSISTANT) for chat in chats]
    return TextSplit(last, None, None, owner, dropped, chats)


def _choices(spec: DataSpec, rows: Rows, column: str, answer: str) -> tuple[list[tuple[str, ...]], list[int]]:
    """The choices of every row, and the place of the right one."""
    found, right = [], []
    for row, (value, said) in enumerate(zip(rows.columns[column], rows.columns[answer], strict=True)):
        where = f"{rows.place(row)} of {rows.name} of {spec.path!r}"
        texts = isinstance(value, list | tuple) and all(isinstance(each, str) and each.strip() for each in value)
        if not texts or len(value) < 2 or len(set(value)) < len(value):
            raise InputError(f'data.choices = "{column}": {where} must be a list of two or more different texts')
        place = _place(value, said)
        if place is None:
            raise InputError(
                f'data.answer = "{answer}": {where} is {said!r:.50}, must be the number of a choice from 0, its letter '
                "from A, or its text"
            )
        found.append(tuple(value))
        right.append(place)
    return found, right


def _place(choices: Sequence[str], said: object) -> int | None:
    if isinstance(said, int) and not isinstance(said, bool):
        return said if 0 <= said < len(choices) else None
    if said in choices:
        return choices.index(str(said))
    letter = ord(said.upper()) - ord("A") if isinstance(said, str) and len(said) == 1 else -1
    return letter if 0 <= letter < len(choices) else None


def _conversations(spec: DataSpec, rows: Rows, column: str) -> list[Chat]:
    chats = []
    for row, value in enumerate(rows.columns[column]):
        try:
            chat = parse_chat(value, spec.system)
            if not all(_is_unicode(turn.content) for turn in chat):
                raise ValueError("has half of a surrogate pair")
        except ValueError as error:
            raise InputError(
                f'data.messages = "{column}": {rows.place(row)} of {rows.name} of "{spec.path}" {error}'
            ) from None
        chats.append(chat)
    return chats


def _check_present(spec: DataSpec, rows: Rows, columns: _Columns) -> None:
    for field, column in columns.fields():
        if rows.columns and column not in rows.columns:
            there = ", ".join(rows.columns)
            raise InputError(f'{field} = "{column}": {rows.name} of "{spec.path}" has no such column, only {there}')
    if not rows.columns or not rows.columns[columns.text]:
        raise InputError(f'data.path = "{spec.path}": {rows.name} has no rows')


def _without_empty(spec: DataSpec, rows: Rows, columns: _Columns) -> tuple[Rows, Dropped | None]:
    """The rows without those that lack a needed value, if ``spec.empty`` allows it; else they are refused."""
    lacking: dict[int, str] = {}
    for field, column in columns.fields():
        for row, value in enumerate(rows.columns[column]):
            if value is None or value == [] or (isinstance(value, str) and not value.strip()):
                lacking.setdefault(row, f'{field} = "{column}"')
    if not lacking:
        return rows, None
    every, first = len(rows.columns[columns.text]), sorted(lacking)[:_SHOWN]
    more = ", ..." if len(lacking) > _SHOWN else ""
    places = ", ".join(f"{rows.place(row)} ({lacking[row]})" for row in first) + more
    if spec.empty == "refuse":
        raise InputError(
            f'data.path = "{spec.path}": {len(lacking)} of {every} rows of {rows.name} are empty: {places}; fill them '
            'in, or drop them with data.empty = "drop"'
        )
    if len(lacking) == every:
        raise InputError(f'data.path = "{spec.path}": {rows.name} has no rows that are not empty')
    return rows.only([row for row in range(every) if row not in lacking]), Dropped(
        rows.name, len(lacking), every, places
    )


def _check_text(spec: DataSpec, rows: Rows, field: str, column: str) -> None:
    for row, value in enumerate(rows.columns[column]):
        if not isinstance(value, str) or not _is_unicode(value):
            what = "half of a surrogate pair" if isinstance(value, str) else f"{type(value).__name__} {value!r}"
            raise InputError(
                f'{field} = "{column}": {rows.place(row)} of {rows.name} of "{spec.path}" is {what[:60]}, must be text'
            )


def _is_unicode(text: str) -> bool:
    """False for half of a surrogate pair, which JSON can write and UTF-8 cannot."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _labelled(
    spec: DataSpec, column: str, found: _Checked, labels: Sequence[str], judge: str = "the server"
) -> TextSplit:
    """The split with the position in ``labels`` of every row's label; ``judge``: where ``labels`` come from."""
    position = {label: index for index, label in enumerate(labels)}
    numbers = []
    for row, name in enumerate(_label_names(spec, column, found.rows)):
        if name not in position:
            raise InputError(
                f'data.label = "{column}": {found.rows.place(row)} of {found.rows.name} of "{spec.path}" has label '
                f"{name!r:.50}, which {judge} does not have; valid: {', '.join(map(repr, labels[:20]))}"
            )
        numbers.append(position[name])
    return replace(found.split, label=np.array(numbers, dtype=np.int64))


def _label_names(spec: DataSpec, column: str, rows: Rows) -> list[str]:
    """The name of every row's label: the text that stands in the file."""
    names, classes = [], rows.class_names.get(column)
    for row, value in enumerate(rows.columns[column]):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if whole and classes is not None and 0 <= value < len(classes):
            names.append(classes[value])
        elif isinstance(value, bool):
            names.append(str(value).lower())  # as JSON writes it
        elif (whole and classes is None) or (isinstance(value, str) and _is_unicode(value)):
            names.append(str(value))
        else:
            raise InputError(
                f'data.label = "{column}": {rows.place(row)} of {rows.name} of "{spec.path}" is {value!r:.50}, '
                "must be a text or an integer"
            )
    return names


def _label_order(column: str, rows: Rows, names: Sequence[str]) -> tuple[str, ...]:
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
