"""The process guard: a small process that starts a program and ends it with all its descendants.

It stands between the launcher and the SuperLink. It ends the whole tree when its standard input closes (the launcher
closed it or died), on SIGTERM, or when the program ends by itself. Flower and Ray start detached processes and some
outlive their parents by half a minute; on Linux the guard adopts such orphans, so it can end all of them.

Usage: ``python -m slimfed.platform.launch.process_guard LOG PROGRAM [ARGUMENT ...]``. The program's output goes to LOG.
The guard's exit code is 0 if it was asked to end, else 1.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from queue import SimpleQueue

import psutil

_PR_SET_CHILD_SUBREAPER = 36
_POLITE_SECONDS = 1.0
_TOTAL_SECONDS = 15.0


def main(arguments: list[str]) -> int:
    """Run ``PROGRAM`` until it ends or the guard must end; then end all remaining descendants."""
    log, command = Path(arguments[0]), arguments[1:]
    adopt_orphans()
    reasons: SimpleQueue[str] = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: reasons.put("asked"))
    scratch = tempfile.mkdtemp(prefix="sf-")
    try:
        with log.open("ab") as output:
            # Ray's sockets live below RAY_TMPDIR; a socket's path may have 107 characters at most, so it is short.
            program = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "RAY_TMPDIR": scratch},
            )
        threading.Thread(target=_await_end_of_input, args=(reasons,), daemon=True).start()
        threading.Thread(target=_await_end_of_program, args=(program, reasons), daemon=True).start()
        reason = reasons.get()
        end_descendants(_POLITE_SECONDS, _TOTAL_SECONDS)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0 if reason == "asked" else 1


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends (Linux; elsewhere nothing happens)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_descendants(polite_seconds: float, total_seconds: float) -> None:
    """End every descendant of this process: SIGTERM first, SIGKILL for those that stay, until none is left."""
    deadline = time.monotonic() + total_seconds
    alive = _signal(_descendants(), signal.SIGTERM)
    psutil.wait_procs(alive, timeout=polite_seconds)
    while (alive := _signal(_descendants(), signal.SIGKILL)) and time.monotonic() < deadline:
        psutil.wait_procs(alive, timeout=1.0)


def _descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _signal(processes: list[psutil.Process], number: signal.Signals) -> list[psutil.Process]:
    """Send a signal to each process; those that existed are returned."""
    reached = []
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue
        reached.append(process)
    return reached


def _await_end_of_input(reasons: "SimpleQueue[str]") -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    reasons.put("asked")


def _await_end_of_program(program: "subprocess.Popen[bytes]", reasons: "SimpleQueue[str]") -> None:
    program.wait()
    reasons.put("program ended")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
