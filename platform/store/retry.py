"""Retrying while the store is temporarily unavailable: restarted, disk full, locked."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError

_log = logging.getLogger(__name__)
_PAUSE_SECONDS = 0.5

Result = TypeVar("Result")


def patiently(action: Callable[[], Result], seconds: float) -> Result:
    """Repeat ``action`` for up to ``seconds`` while the database fails; then raise the last error.

    ``action`` must be one transaction that may be repeated: a failed one may have been committed before the connection
    was lost.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return action()
        except DBAPIError as error:
            if time.monotonic() >= deadline:
                raise
            _log.warning("the store fails, trying again: %s", str(error.orig).strip().splitlines()[:1])
            time.sleep(_PAUSE_SECONDS)
