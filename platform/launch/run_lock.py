"""The lock of a run: one process computes it.

The process that computes a run holds an advisory lock on the file ``lock`` in the run's folder. The kernel releases the
lock when the process ends, however it ends, so a lock is never stale. The file has the process id of its last holder.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import psutil

from slimfed.clients.errors import InputError
from slimfed.platform.home import RunFolder

_LOOKS_SECONDS = 1.0
"""How long a computation waits for processes that only look whether the lock is held."""
_PAUSE_SECONDS = 0.01


@contextmanager
def computing(folder: RunFolder) -> Iterator[None]:
    """Context of the one process that computes the run. Raises ``InputError`` if another process computes it."""
    with folder.lock.open("a+") as lock:
        _take(lock, folder, fcntl.LOCK_EX, _LOOKS_SECONDS)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def refuse_if_computed(folder: RunFolder) -> None:
    """Raises ``InputError`` if a process computes the run, whatever the store says."""
    if folder.lock.is_file():
        # Some network file systems lock only what is open for writing; in a home that can only be read it cannot be.
        with folder.lock.open("r+" if os.access(folder.lock, os.W_OK) else "r") as lock:
            _take(lock, folder, fcntl.LOCK_SH)


def is_computed(folder: RunFolder) -> bool:
    """True if a process of this machine computes the run."""
    try:
        refuse_if_computed(folder)
    except InputError:
        return True
    return False


def _take(lock: IO[str], folder: RunFolder, kind: int, patience: float = 0.0) -> None:
    """Lock the file until it is closed. Looks share the lock, so that none takes another for the computation."""
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise _refused(lock, folder, error) from None
            time.sleep(_PAUSE_SECONDS)
        except OSError as error:
            raise _refused(lock, folder, error) from None


def _refused(lock: IO[str], folder: RunFolder, error: OSError) -> InputError:
    if not isinstance(error, BlockingIOError):
        return InputError(
            f"SLIMFED_HOME = {str(folder.path.parent)!r}: its file system takes no locks ({error.strerror}); name a "
            "folder on a file system that does"
        )
    lock.seek(0)
    holder = lock.read().strip()
    alive = holder.isdigit() and psutil.pid_exists(int(holder))
    who, ending = (f"process {holder}", f"end it (kill {holder})") if alive else ("another process", "end it")
    return InputError(
        f"run {folder.path.name} is being computed by {who}, which holds {folder.lock}; wait for its end, or "
        f"{ending} and try again"
    )
