"""How a simulated node tells the server of the same machine how far it is with a message.

A node replies when all devices of a message are trained, which can take minutes. Meanwhile it keeps one small file in a
folder that the server reads. The file is gone when the node replies. Without a folder nothing is told: real nodes have
none, and workers of a Ray cluster may be on other machines.
"""

import json
import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from slimfed.clients.telemetry.meter import Amount, Meter
from slimfed.clients.update import Assignment

VARIABLE = "SLIMFED_PROGRESS"
"""The folder, in the environment of the processes of a run or in the configuration of a local node."""

_log = logging.getLogger(__name__)


def folder_of(config: Mapping[str, object], variables: Mapping[str, str] = os.environ) -> Path | None:
    """The folder that a node's configuration or the environment names; None if there is none."""
    named = config.get(VARIABLE) or variables.get(VARIABLE)
    return Path(str(named)) if named else None


@contextmanager
def telling(folder: Path | None, assignments: Sequence[Assignment]) -> Iterator[Meter]:
    """The meter of the message with these ``assignments``; it tells until the block ends."""
    if folder is None or not assignments:
        yield Meter()
        return
    file = folder / _name(assignments[0].round, assignments[0].device)
    try:
        yield Meter(partial(_write, file))
    finally:
        with suppress(OSError):
            file.unlink(missing_ok=True)


def told(folder: Path | None, round: int, firsts: Collection[int]) -> Amount:
    """The sum of what nodes tell of messages of ``round`` with these first devices."""
    total = Amount()
    for first in firsts if folder is not None else ():
        total += _read(Path(str(folder)) / _name(round, first))
    return total


def _name(round: int, first: int) -> str:
    return f"round-{round}-{first}.json"


def _write(file: Path, amount: Amount) -> None:
    """Write the file, complete or not at all. A full disk costs the display and not the round."""
    aside = file.with_suffix(f".{os.getpid()}")
    try:
        aside.write_text(json.dumps([amount.trained, amount.rows_done, amount.rows]), encoding="utf-8")
        aside.replace(file)
    except OSError as error:
        _log.debug("%s cannot be written: %s", file, error)


def _read(file: Path) -> Amount:
    """What the file tells; nothing if it is not there, or was written by a process that broke off."""
    try:
        trained, done, rows = json.loads(file.read_bytes())
        return Amount(float(trained), int(done), int(rows))
    except (OSError, ValueError, TypeError):
        return Amount()
