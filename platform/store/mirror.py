"""A copy of a run's rows in its folder, so that a lost store can be rebuilt (``slimfed db recover``).

``rows/run.json.gz`` has the run, its devices and its events as they were when the run was created, and
``rows/round-00012.json.gz`` every row of round 12. A file is complete or missing: it is written under another name,
synced and renamed. Rows of nodes and checkpoints are not copied, nor are events outside a finished round, tags and
notes.
"""

import base64
import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, LargeBinary, Table, select

from slimfed.clients.errors import InputError
from slimfed.platform.store.schema import (
    NEWEST_REVISION,
    Assignment,
    Base,
    BlockLeft,
    ClassRound,
    Device,
    Evaluation,
    Event,
    Moment,
    Pull,
    Round,
    Run,
)

Rows = dict[str, list[dict[str, Any]]]
"""Rows by the name of their table."""

_OF_A_RUN = (Run, Device, Event)
_OF_A_ROUND = (Round, Assignment, Evaluation, ClassRound, Pull, BlockLeft, Event)
_NAME = re.compile(r"round-(\d{5,})\.json\.gz")
_RUN = "run.json.gz"


def copy_run(connection: Connection, run_id: str, folder: Path) -> None:
    """Copy the rows of a new run into ``folder``. Raises ``OSError``."""
    folder.mkdir(exist_ok=True)
    found = {_table(kind).name: _read(connection, _table(kind), run_id) for kind in _OF_A_RUN}
    _write(folder / _RUN, found)


def copy_round(connection: Connection, run_id: str, round: int, folder: Path) -> None:
    """Copy the rows of a recorded round into ``folder``; copies of later rounds are removed. Raises ``OSError``."""
    folder.mkdir(exist_ok=True)
    found = {_table(kind).name: _read(connection, _table(kind), run_id, round) for kind in _OF_A_ROUND}
    _write(folder / _file(round), found)
    forget_after(folder, round)


def rounds(folder: Path) -> list[int]:
    """The rounds that ``folder`` has a copy of, ascending."""
    names = [_NAME.fullmatch(path.name) for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(match[1]) for match in names if match)


def forget_after(folder: Path, round: int) -> None:
    """Remove the copies of the rounds after ``round``, from which a resumed run continues. Raises ``OSError``."""
    for later in (number for number in rounds(folder) if number > round):
        (folder / _file(later)).unlink()


def read_run(folder: Path, run_id: str) -> Rows | None:
    """The rows of the run; None if there is no copy. Raises ``InputError`` for a damaged one, or one of another run."""
    path = folder / _RUN
    return _checked(path, Run, "id", run_id) if path.is_file() else None


def read_rounds(folder: Path, run_id: str) -> Iterator[tuple[int, Rows]]:
    """Number and rows of each copied round, up to the first gap. Raises ``InputError`` for a damaged copy."""
    for expected, number in enumerate(rounds(folder), 1):
        if number != expected:
            return
        yield number, _checked(folder / _file(number), Round, "run_id", run_id)


def _checked(path: Path, kind: type[Base], key: str, run_id: str) -> Rows:
    """The rows of a file, which must have one row of ``kind``, and that of this run."""
    rows = _decoded(path)
    if [row.get(key) for row in rows.get(kind.__tablename__, [])] != [run_id]:
        raise InputError(f"{str(path)!r}: is no copy of rows of run {run_id}; delete it to do without")
    return rows


def _file(round: int) -> str:
    return f"round-{round:05d}.json.gz"


def _table(kind: type[Base]) -> Table:
    table = kind.__table__
    assert isinstance(table, Table)
    return table


def _read(connection: Connection, table: Table, run_id: str, round: int | None = None) -> list[dict[str, Any]]:
    """The rows of one run, or of one round of it. Numbers of events are the database's own and left out."""
    wanted = [column for column in table.columns if not column.autoincrement or column.autoincrement == "auto"]
    query = select(*wanted).where((table.c.id if table.name == Run.__tablename__ else table.c.run_id) == run_id)
    if round is not None:
        # Round 0, the model before training, has one row, which the copy of round 1 has as well.
        with_first = table.name == Evaluation.__tablename__ and round == 1
        query = query.where(table.c.round.in_((0, 1)) if with_first else table.c.round == round)
    return [dict(row) for row in connection.execute(query).mappings()]


def _write(path: Path, rows: Rows) -> None:
    tables = {name: _columns(each) for name, each in rows.items() if each}
    content = {"format": 1, "revision": NEWEST_REVISION, "tables": tables}
    packed = gzip.compress(json.dumps(content, default=_encoded).encode(), compresslevel=3, mtime=0)
    aside = path.with_name(f".{path.name}-{os.getpid()}")
    with aside.open("wb") as file:
        file.write(packed)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The values of each column, as equal ones then stand together and take little space."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def _rows(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _encoded(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"a row has a {type(value).__name__}")


def _decoded(path: Path) -> Rows:
    """Rows whose columns this slimfed's tables have, with times and bytes as such."""
    try:
        content = json.loads(gzip.decompress(path.read_bytes()))
        return {
            name: [_typed(Base.metadata.tables[name], row) for row in _rows(columns)]
            for name, columns in content["tables"].items()
            if name in Base.metadata.tables
        }
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{str(path)!r}: is no copy of rows ({type(error).__name__}: {error}); delete it to do without"
        ) from None


def _typed(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    return {name: _value(table, name, value) for name, value in row.items() if name in table.columns}


def _value(table: Table, name: str, value: Any) -> Any:
    if value is None:
        return None
    kind = table.columns[name].type
    if isinstance(kind, Moment):
        return datetime.fromisoformat(value)
    return base64.b64decode(value, validate=True) if isinstance(kind, LargeBinary) else value
