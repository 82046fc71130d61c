"""Loading of labelled text: from slimfed itself, from files, or from the hub."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

from slimfed.clients.builtin.commands import Row, commands
from slimfed.clients.errors import InputError
from slimfed.clients.sources.hub import ask_hub, is_local
from slimfed.clients.sources.safe_paths import check_inside
from slimfed.clients.spec import DataSpec, PartitionSpec

Task = Literal["classification", "causal-lm"]
BUILTIN = ("builtin:commands",)
_READERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".jsonl": ("json", {}),
    ".json": ("json", {}),
    # An empty cell is an empty text and "null" is a word; pandas would read both as missing.
    ".csv": ("csv", {"keep_default_na": False}),
    # Tab-separated files have no quoting (IANA text/tab-separated-values): a single quote must not join lines.
    ".tsv": ("csv", {"keep_default_na": False, "sep": "\t", "quoting": 3}),
    ".parquet": ("parquet", {}),
}
_SPLITS = ("train", "test")


@dataclass(frozen=True)
class TextSplit:
    """Examples as columns of equal length.

    ``text``: the text (classification), or the completion to learn (causal-lm). ``prompt``: the text before it, which
    is not in the loss. ``label``: int64 [examples], positions in :attr:`TextData.labels`. ``owner``: its owner
    (training split of a natural partition only).
    """

    text: Sequence[str]
    prompt: Sequence[str] | None = None
    label: np.ndarray | None = None
    owner: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.text)


@dataclass(frozen=True)
class TextData:
    """A training and a test split, and the names of the classes (``None`` for causal-lm)."""

    train: TextSplit
    test: TextSplit
    labels: tuple[str, ...] | None


@dataclass(frozen=True)
class _Columns:
    """Names of the columns to read; ``None`` where the task has none."""

    text: str
    prompt: str | None
    label: str | None
    owner: str | None

    def fields(self) -> list[tuple[str, str]]:
        """``(field of the job file, column)`` of all required columns."""
        text = "data.text" if self.prompt is None else "data.completion"
        named = [
            (text, self.text),
            ("data.prompt", self.prompt),
            ("data.label", self.label),
            ("data.partition.column", self.owner),
        ]
        return [(field, column) for field, column in named if column is not None]


@dataclass(frozen=True)
class _Raw:
    """One split before the checks: columns of Python values, and the names of integer labels if the source has them."""

    name: str
    columns: dict[str, list[Any]]
    label_names: tuple[str, ...] | None = None


def load_data(spec: DataSpec, task: Task) -> TextData:
    """Load the training and the test split of ``spec``.

    Files are read by `datasets` into its own cache, which concurrent processes share; nothing is written beside them. A
    validation split is not read. Labels are numbered in order: the source's own order of classes if it has one, else
    integers by value and texts by alphabet. ``builtin:commands`` has the pair prompt and completion for causal-lm and
    uses it unless the spec names columns.

    Raises :class:`InputError` for a missing folder, file, column or split, a value that is not text, a label that only
    the test split has, and a hub that does not answer.
    """
    columns = _columns(spec, task)
    raw = _read(spec, columns)
    needed = (columns, replace(columns, owner=None))  # the test split needs no owners
    for split, wanted in zip(raw, needed, strict=True):
        _check_present(spec, split, wanted)
    train, test = (_texts(spec, split, wanted) for split, wanted in zip(raw, needed, strict=True))
    if columns.label is None:
        return TextData(train, test, None)
    return _label(spec, columns.label, raw, (train, test))


def load_own_data(spec: DataSpec, task: Task, folder: Path, labels: Sequence[str] | None) -> TextData:
    """The text that a real device keeps in ``folder``: a train file, and a test file if it has one (else no rows).

    ``spec`` names the columns, ``labels`` the classes in the server's order; the server's data path is ignored. Raises
    :class:`InputError` for files that cannot be read, and for labels that the server does not have.
    """
    own = spec.model_copy(update={"path": str(folder), "partition": PartitionSpec()})
    columns = _columns(own, task)
    splits = []
    for name in _SPLITS:
        if name == "test" and not any((folder / (name + ending)).is_file() for ending in _READERS):
            splits.append(TextSplit((), None, None if columns.label is None else np.zeros(0, dtype=np.int64)))
            continue
        raw = _read_file(own, _find(own, folder, name), columns)
        _check_present(own, raw, columns)
        split = _texts(own, raw, columns)
        splits.append(split if columns.label is None else _labelled(own, columns.label, raw, split, labels or ()))
    return TextData(splits[0], splits[1], None if labels is None else tuple(labels))


def load_test(spec: DataSpec, task: Task, labels: Sequence[str] | None) -> TextSplit:
    """Text for the evaluation of a finished model: the file ``spec.path``, or the test split of that data set.

    ``labels``: the model's own, in order; the text's labels are numbered in this order. Raises :class:`InputError` as
    :func:`load_data` does, and for a label that the model does not have.
    """
    columns = replace(_columns(spec, task), owner=None)
    file = Path(spec.path).expanduser()
    if file.is_file():
        if file.suffix not in _READERS:
            raise InputError(f'data.path = "{spec.path}": is no text that can be read; valid: {", ".join(_READERS)}')
        raw = _read_file(spec, file, columns)
    else:
        raw = _read(spec, columns)[1]
    _check_present(spec, raw, columns)
    texts = _texts(spec, raw, columns)
    if columns.label is None:
        return texts
    return _labelled(spec, columns.label, raw, texts, labels or (), "the model")


def _labelled(
    spec: DataSpec, column: str, raw: _Raw, split: TextSplit, labels: Sequence[str], judge: str = "the server"
) -> TextSplit:
    position = {label: index for index, label in enumerate(labels)}
    numbers = []
    for row, value in enumerate(_label_values(spec, column, raw)):
        if str(value) not in position:
            raise InputError(
                f'data.label = "{column}": row {row + 1} of {raw.name} of "{spec.path}" has label {str(value)!r:.50}, '
                f"which {judge} does not know; valid: {', '.join(map(repr, labels[:20]))}"
            )
        numbers.append(position[str(value)])
    return replace(split, label=np.array(numbers, dtype=np.int64))


def _columns(spec: DataSpec, task: Task) -> _Columns:
    owner = spec.partition.column if spec.partition.kind == "natural" else None
    if task == "classification":
        return _Columns(spec.text, None, spec.label, owner)
    if spec.prompt is None and spec.path in BUILTIN and spec.text == "text":
        return _Columns("completion", "prompt", None, owner)
    return _Columns(spec.completion or spec.text, spec.prompt, None, owner)


# Reading: every source ends as two raw splits.


def _read(spec: DataSpec, columns: _Columns) -> tuple[_Raw, _Raw]:
    if spec.path.startswith("builtin:"):
        if spec.path not in BUILTIN:
            raise InputError(f'data.path = "{spec.path}" is not built in; valid are {", ".join(BUILTIN)}')
        train, test = commands()
        return _raw_commands("train", train), _raw_commands("test", test)
    if is_local(spec.path):
        return _read_folder(spec, columns)
    return _read_hub(spec, columns)


def _raw_commands(name: str, rows: Sequence[Row]) -> _Raw:
    texts = [row.text for row in rows]
    return _Raw(
        name,
        {
            "text": texts,
            "label": [row.label for row in rows],
            "user": [row.user for row in rows],
            "prompt": texts,
            "completion": [row.answer for row in rows],
        },
    )


def _read_folder(spec: DataSpec, columns: _Columns) -> tuple[_Raw, _Raw]:
    folder = Path(spec.path).expanduser()
    if not folder.is_dir():
        raise InputError(f'data.path = "{spec.path}": there is no such folder')
    train, test = (_find(spec, folder, split) for split in _SPLITS)
    return _read_file(spec, train, columns), _read_file(spec, test, columns)


def _find(spec: DataSpec, folder: Path, split: str) -> Path:
    found = [folder / (split + ending) for ending in _READERS if (folder / (split + ending)).is_file()]
    if not found:
        raise InputError(
            f'data.path = "{spec.path}" has no {split} file; valid are {", ".join(split + e for e in _READERS)}'
        )
    if len(found) > 1:
        raise InputError(f'data.path = "{spec.path}" has {" and ".join(f.name for f in found)}: keep one of them')
    check_inside(folder, found[0], "data.path")
    return found[0]


def _read_file(spec: DataSpec, file: Path, columns: _Columns) -> _Raw:
    if file.stat().st_size == 0:
        raise InputError(f'data.path = "{spec.path}": {file.name} is empty')
    reader, options = _READERS[file.suffix]
    try:
        with _quiet():
            loaded = datasets.load_dataset(reader, data_files={"train": str(file)}, split="train", **options)
    except (DatasetGenerationError, ValueError, OSError) as error:
        raise InputError(f'data.path = "{spec.path}": {file.name} cannot be read: {_reason(error)}') from error
    return _take(file.name, loaded, columns)


def _read_hub(spec: DataSpec, columns: _Columns) -> tuple[_Raw, _Raw]:
    offline = datasets.config.HF_HUB_OFFLINE
    if not offline and ask_hub("dataset", "data.path", spec.path, None) == "unreachable":
        raise InputError(
            f'data.path = "{spec.path}" is not a folder here and the hub cannot be reached; give a folder with train '
            "and test files, builtin:commands, or set HF_HUB_OFFLINE=1 to use a copy from the local cache"
        )
    try:
        with _quiet():
            loaded = datasets.load_dataset(spec.path)
    except (ConnectionError, DatasetNotFoundError) as error:
        raise InputError(
            f'data.path = "{spec.path}" is not a folder here, HF_HUB_OFFLINE is set, and the local cache has no copy; '
            "give a folder with train and test files, or builtin:commands"
            if offline
            else f'data.path = "{spec.path}" cannot be loaded from the hub: {_reason(error)}'
        ) from error
    except (DatasetGenerationError, ValueError, OSError, RuntimeError) as error:
        raise InputError(f'data.path = "{spec.path}" cannot be loaded from the hub: {_reason(error)}') from error
    for split in _SPLITS:
        if split not in loaded:
            raise InputError(f'data.path = "{spec.path}" has no split "{split}", only {", ".join(loaded)}')
    return _take("train", loaded["train"], columns), _take("test", loaded["test"], columns)


def _take(name: str, loaded: datasets.Dataset, columns: _Columns) -> _Raw:
    """The columns that are needed (and the bare names of the others, for error messages)."""
    needed = {column for _, column in columns.fields()}
    values = {column: loaded[column][:] if column in needed else [] for column in loaded.column_names}
    feature = loaded.features.get(columns.label or "")
    return _Raw(name, values, tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else None)


def _reason(error: BaseException) -> str:
    """The innermost cause, on one line: `datasets` wraps the parser's error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:200]


# Checking: the guarantees of loaded text.


def _check_present(spec: DataSpec, split: _Raw, columns: _Columns) -> None:
    for field, column in columns.fields():
        if column not in split.columns:
            there = ", ".join(split.columns)
            raise InputError(f'{field} = "{column}": {split.name} of "{spec.path}" has no such column, only {there}')
    if not split.columns[columns.text]:
        raise InputError(f'data.path = "{spec.path}": {split.name} has no rows')


def _texts(spec: DataSpec, split: _Raw, columns: _Columns) -> TextSplit:
    for field, column in columns.fields():
        if column in (columns.text, columns.prompt):
            _check_text(spec, split, field, column)
    owner = None
    if columns.owner is not None:
        owner = [str(value) for value in split.columns[columns.owner]]
        empty = [row for row, value in enumerate(split.columns[columns.owner]) if value is None]
        if empty:
            raise InputError(
                f'data.partition.column = "{columns.owner}": row {empty[0] + 1} of {split.name} of "{spec.path}" names '
                "no owner"
            )
    prompt = split.columns[columns.prompt] if columns.prompt else None
    return TextSplit(split.columns[columns.text], prompt, None, owner)


def _check_text(spec: DataSpec, split: _Raw, field: str, column: str) -> None:
    for row, value in enumerate(split.columns[column]):
        if not isinstance(value, str) or not value.strip():
            what = "empty" if value is None or isinstance(value, str) else f"{type(value).__name__} {value!r}"
            raise InputError(
                f'{field} = "{column}": row {row + 1} of {split.name} of "{spec.path}" is {what[:60]}, must be text'
            )


def _label(spec: DataSpec, column: str, raw: tuple[_Raw, _Raw], splits: tuple[TextSplit, TextSplit]) -> TextData:
    train_values, test_values = (_label_values(spec, column, split) for split in raw)
    known = _order(train_values, raw[0].label_names)
    for value in sorted(set(test_values) - set(known), key=str):
        row = test_values.index(value) + 1
        raise InputError(
            f'data.label = "{column}": label {value!r} is only in the test split (row {row} of {raw[1].name} of '
            f'"{spec.path}"); the training split has {", ".join(map(repr, known[:20]))}'
        )
    position = {value: index for index, value in enumerate(known)}
    train, test = (
        TextSplit(split.text, None, np.array([position[v] for v in values], dtype=np.int64), split.owner)
        for split, values in zip(splits, (train_values, test_values), strict=True)
    )
    return TextData(train, test, tuple(str(value) for value in known))


def _label_values(spec: DataSpec, column: str, split: _Raw) -> list[int | str]:
    values: list[int | str] = []
    for row, value in enumerate(split.columns[column]):
        named = split.label_names is not None and isinstance(value, int)
        if named and value >= 0:
            values.append(split.label_names[value])  # type: ignore[index]
        elif isinstance(value, int | str) and not named and value != "":
            values.append(int(value) if isinstance(value, bool) else value)
        else:
            raise InputError(
                f'data.label = "{column}": row {row + 1} of {split.name} of "{spec.path}" is {value!r}, '
                "must be a text or an integer"
            )
    return values


def _order(values: Iterable[int | str], names: tuple[str, ...] | None) -> list[int | str]:
    present = set(values)
    if names is not None:
        return [name for name in names if name in present]
    return sorted(present, key=lambda value: (isinstance(value, str), value))


@contextmanager
def _quiet() -> Iterator[None]:
    """Disable the progress bars and warnings of `datasets`; a run has its own progress bar."""
    level, bars = datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if not bars:
            datasets.enable_progress_bars()
