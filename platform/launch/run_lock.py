"""The lock of a run: one process computes it.

The process that computes a run holds an advisory lock on the file ``lock`` in the run's folder. The kernel releases the
lock when the process ends, however it ends, so a lock is never stale. The file has the process id of its last holder.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from slimfed.clients.errors import InputError
from slimfed.platform.home import RunFolder


@contextmanager
def computing(folder: RunFolder) -> Iterator[None]:
    """Context of the one process that computes the run. Raises ``InputError`` if another process computes it."""
    with folder.lock.open("a+") as lock:
        _take(lock, folder)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def refuse_if_computed(folder: RunFolder) -> None:
    """Raises ``InputError`` if a process computes the run, whatever the store says."""
    if folder.lock.is_file():
        # Some network file systems lock only what is open for writing; in a home that can only be read it cannot be.
        with folder.lock.open("r+" if os.access(folder.lock, os.W_OK) else "r") as lock:
            _take(lock, folder)


def is_computed(folder: RunFolder) -> bool:
    """True if a process of this machine computes the run."""
    try:
        refuse_if_computed(folder)
    except InputError:
        return True
    return False


def _take(lock: IO[str], folder: RunFolder) -> None:
    """Lock the file until it is closed."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip()
        who = f"process {holder}" if holder else "another process"
        ending = f"end it (kill {holder})" if holder else "end it"
        raise InputError(
            f"run {folder.path.name} is being computed by {who}, which holds {folder.lock}; wait for its end, or "
            f"{ending} and try again"
        ) from None
    except OSError as error:
        raise InputError(
            f"SLIMFED_HOME = {str(folder.path.parent)!r}: its file system takes no locks ({error.strerror}); name a "
            "folder on a file system that does"
        ) from None
