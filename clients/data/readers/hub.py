"""A data set of the hub: its training and its test split, through the cache of `datasets`."""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import datasets
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

from slimfed.clients.data.readers.parquet import class_names
from slimfed.clients.data.readers.rows import Rows
from slimfed.clients.errors import InputError
from slimfed.clients.sources.hub import ask_hub


def read_hub(path: str, splits: Collection[str], needed: Collection[str]) -> list[Rows]:
    """The rows of each of ``splits``. Raises ``InputError`` if the hub does not answer or has no such thing."""
    offline = datasets.config.HF_HUB_OFFLINE
    if not offline and ask_hub("dataset", "data.path", path, None) == "unreachable":
        raise InputError(
            f'data.path = "{path}" is not a folder here and the hub cannot be reached; give a folder with train '
            "and test files, builtin:commands, or set HF_HUB_OFFLINE=1 to use a copy from the local cache"
        )
    try:
        with _quiet():
            loaded = datasets.load_dataset(path)
    except (ConnectionError, DatasetNotFoundError) as error:
        raise InputError(
            f'data.path = "{path}" is not a folder here, HF_HUB_OFFLINE is set, and the local cache has no copy; '
            "give a folder with train and test files, or builtin:commands"
            if offline
            else f'data.path = "{path}" cannot be loaded from the hub: {_reason(error)}'
        ) from error
    except (DatasetGenerationError, ValueError, OSError, RuntimeError) as error:
        raise InputError(f'data.path = "{path}" cannot be loaded from the hub: {_reason(error)}') from error
    for split in splits:
        if split not in loaded:
            raise InputError(f'data.path = "{path}" has no split "{split}", only {", ".join(loaded)}')
    return [_rows(split, loaded[split], needed) for split in splits]


def _rows(name: str, loaded: datasets.Dataset, needed: Collection[str]) -> Rows:
    """The columns that are needed (and the bare names of the others, for error messages)."""
    values = {column: loaded[column][:] if column in needed else [] for column in loaded.column_names}
    return Rows(name, values, class_names=class_names(loaded.features))


def _reason(error: BaseException) -> str:
    """The innermost cause, on one line: `datasets` wraps the parser's error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:200]


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
