"""The process guard: a small process that starts a program and ends it with all its descendants.

It stands between the launcher and the run. It ends the whole tree when its standard input closes (the launcher closed
it or died), on SIGTERM, or when the program ends by itself. Ray starts detached processes and some outlive their
parents by half a minute; on Linux the guard adopts such orphans, so it can end all of them. If the guard itself is
killed, the kernel kills the program with it (on Linux), Ray's processes end with the program, and the launcher removes
what is left.

Usage: ``python -m slimfed.platform.launch.process_guard LOG [--scratch FOLDER] PROGRAM [ARGUMENT ...]``. The program's
output goes to LOG; FOLDER is removed at the end. The guard's exit code is 0 if it was asked to end, else 1; LOG then
says how the program ended.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLITE_SECONDS = 1.0
_TOTAL_SECONDS = 15.0
_ASKED = "asked to end"


def main(arguments: list[str]) -> int:
    """Run ``PROGRAM`` until it ends or the guard must end; then end all remaining descendants."""
    log, command = Path(arguments[0]), arguments[1:]
    scratch = None
    if command[0] == "--scratch":
        scratch, command = Path(command[1]), command[2:]
    adopt_orphans()
    reasons: SimpleQueue[str] = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: reasons.put(_ASKED))
    try:
        with log.open("ab") as output:
            program = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=dying_with_parent(),
            )
        threading.Thread(target=_await_end_of_input, args=(reasons,), daemon=True).start()
        threading.Thread(target=_await_end_of_program, args=(program, reasons), daemon=True).start()
        reason = reasons.get()
        if reason != _ASKED:
            _note_end(log, reason)
        end_descendants(_POLITE_SECONDS, _TOTAL_SECONDS)
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    return 0 if reason == _ASKED else 1


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends (Linux; elsewhere nothing happens)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def dying_with_parent() -> Callable[[], None] | None:
    """What a child calls before it becomes another program, so that the kernel kills it when this thread ends (Linux).

    None elsewhere.
    """
    if sys.platform != "linux":
        return None
    library, parent = ctypes.CDLL(None, use_errno=True), os.getpid()  # looked up before the fork

    def die_with_parent() -> None:
        library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return die_with_parent


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
    reasons.put(_ASKED)


def _await_end_of_program(program: "subprocess.Popen[bytes]", reasons: "SimpleQueue[str]") -> None:
    code = program.wait()
    reasons.put(f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}")


def _note_end(log: Path, how: str) -> None:
    try:
        with log.open("a") as output:
            output.write(f"the program {how}\n")
    except OSError:  # a full disk; the guard's exit code still says that the program ended by itself
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
