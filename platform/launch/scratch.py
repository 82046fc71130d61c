"""The scratch folder of a simulated run: Ray's session and sockets, and the run's secrets. Only its owner can enter it.

The folder is in the system's folder for temporary files. A socket's path may have 107 bytes at most, so the folder's
own path must be short. Its file ``lock`` is locked while the launcher or the guard of the run lives. A folder that
nobody locks was left behind by a run that was killed with its guard: the next run removes it, with every process that
belongs to it.
"""

import fcntl
import logging
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from slimfed.clients.errors import InputError

_log = logging.getLogger(__name__)

VARIABLE = "RAY_TMPDIR"
"""Every process of a run starts with the path of the run's scratch folder in this variable of its environment."""

_PREFIX = "sf-"
_LONGEST = 107 - len(f"/{_PREFIX}12345678/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store.1")
"""Bytes that the path of the folder around a scratch folder may have, for Ray's sockets to fit."""
_KILL_SECONDS = 10.0
_OTHERS = ("/tmp", "/var/tmp")


@dataclass(frozen=True)
class Scratch:
    """A scratch folder, with the file descriptor that locks it."""

    path: Path
    descriptor: int

    def remove(self) -> None:
        """End every process that belongs to the folder, remove the folder, and release its lock."""
        end_processes_of(self.path)
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.descriptor)


def make_scratch() -> Scratch:
    """A new scratch folder of mode 700, after the ones that killed runs left behind are removed. Raises ``OSError``."""
    base = scratch_base()
    if base != _wanted():
        _log.warning("TMPDIR = %s is too long for Ray's sockets: %s is used in its place", _wanted(), base)
    remove_left_behind(base)
    path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    try:
        descriptor = os.open(path / "unlocked", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        (path / "unlocked").rename(path / "lock")  # it has its name once it is locked, so no other run takes it
    except OSError:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return Scratch(path, descriptor)


def scratch_base() -> Path:
    """The folder for temporary files, or another one of the system's if its path is too long for sockets.

    Raises ``InputError`` if there is none that is short enough and can be written.
    """
    fitting = (base for base in (_wanted(), *map(Path, _OTHERS)) if _fits(base) and os.access(base, os.W_OK))
    found = next(fitting, None)
    if found is None:
        raise InputError(
            f"TMPDIR = {str(_wanted())!r}: has {len(os.fsencode(_wanted()))} bytes; Ray's sockets are in it, and their "
            f"path may have 107, which leaves {_LONGEST}; name a folder with a shorter path"
        )
    return found


def remove_left_behind(base: Path) -> None:
    """Remove scratch folders of this user that no launcher and no guard locks, and end their processes."""
    for path in base.glob(f"{_PREFIX}????????"):
        if _is_left_behind(path):
            _log.info("%s was left behind by a run that was killed: it is removed", path)
            end_processes_of(path)
            shutil.rmtree(path, ignore_errors=True)


def end_processes_of(path: Path) -> None:
    """Kill every process of this user that has ``path`` as its scratch folder, until none is left, for ten seconds."""
    deadline = time.monotonic() + _KILL_SECONDS
    while time.monotonic() < deadline:
        found = [process for process in psutil.process_iter() if _belongs(process, path)]
        if not found:
            return
        for process in found:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(found, timeout=1.0)


def _wanted() -> Path:
    """The folder for temporary files. Raises ``InputError`` if there is none."""
    try:
        return Path(tempfile.gettempdir()).absolute()
    except FileNotFoundError as error:
        raise InputError(f"TMPDIR: there is no folder for temporary files ({error.strerror}); name one") from None


def _fits(base: Path) -> bool:
    return len(os.fsencode(base)) <= _LONGEST


def _is_left_behind(path: Path) -> bool:
    """True for a folder of this user with a lock that nobody holds. A folder without lock is of another program."""
    try:
        if path.stat(follow_symlinks=False).st_uid != os.getuid():
            return False
        with (path / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:
        return False


def _belongs(process: psutil.Process, path: Path) -> bool:
    """True for a living process, other than this one, that has ``path`` in its environment or works in it.

    Ray's processes overwrite their environment with a title, but all of them work in the folder.
    """
    try:
        if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        return process.environ().get(VARIABLE) == str(path) or path in (at := Path(process.cwd()), *at.parents)
    except (psutil.Error, OSError):  # it has ended, or belongs to somebody else
        return False
