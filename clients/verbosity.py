"""The log level of slimfed. All loggers are children of "slimfed", whose level a process sets.

``SLIMFED_LOG`` (debug, info, warning or error; default info) sets it for the processes of a run: server, nodes,
workers.
"""

import logging
import os
import sys
from collections.abc import Mapping

from slimfed.clients.errors import InputError

VARIABLE = "SLIMFED_LOG"
LEVELS = ("debug", "info", "warning", "error")
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def set_verbosity(level: str) -> None:
    """Log to standard error from ``level`` on, in this process and in those that it starts from now on.

    ``level`` is one of :data:`LEVELS`. Raises ``InputError`` for another one.
    """
    number = _number(level)
    os.environ[VARIABLE] = level
    tree = logging.getLogger("slimfed")
    tree.setLevel(number)
    if not any(isinstance(handler, _ToStandardError) for handler in tree.handlers):
        tree.addHandler(_ToStandardError())


def follow_environment(environment: Mapping[str, str] = os.environ) -> None:
    """Set the level of this process to that of :data:`VARIABLE`. Raises ``InputError`` for an unknown one."""
    logging.getLogger("slimfed").setLevel(_number(environment.get(VARIABLE) or "info"))


class _ToStandardError(logging.StreamHandler):
    """Writes to what is standard error when it writes, as a test or a notebook may have replaced it."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(logging.Formatter(FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _number(level: str) -> int:
    if level not in LEVELS:
        raise InputError(f"{VARIABLE} = {level!r}: must be one of {', '.join(LEVELS)}")
    return int(logging.getLevelNamesMapping()[level.upper()])
