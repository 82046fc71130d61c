"""Parquet files; a value has the type of its column."""

from collections.abc import Collection
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet

from slimfed.clients.data.readers.rows import Rows
from slimfed.clients.errors import InputError


def read_parquet(file: Path, where: str, needed: Collection[str]) -> Rows:
    """The rows of ``file``; names of integer labels are those that `datasets` wrote into it, if it did.

    Raises ``InputError`` for a file that cannot be read.
    """
    try:
        opened = pyarrow.parquet.ParquetFile(file)
        schema = opened.schema_arrow
        table = opened.read(columns=[name for name in schema.names if name in needed])
        values = {name: table.column(name).to_pylist() for name in table.column_names}
        features = datasets.Features.from_arrow_schema(schema)
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{where} cannot be read: {' '.join(str(error).split())[:200]}") from error
    return Rows(file.name, {name: values.get(name, []) for name in schema.names}, class_names=class_names(features))


def class_names(features: datasets.Features) -> dict[str, tuple[str, ...]]:
    """The names of the classes of every column of class labels."""
    return {name: tuple(f.names) for name, f in features.items() if isinstance(f, datasets.ClassLabel)}
