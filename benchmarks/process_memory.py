"""Memory of a running slimfed, from outside: a thread looks at the tree of its processes twice a second."""

import threading
from collections import defaultdict
from types import TracebackType

import psutil
from machine import ask_gpus

_SECONDS = 0.5
_LOOKS_A_GPU = 4


class MemoryWatch:
    """Peaks of memory while it is open: a context manager; :meth:`follow` names the process whose tree is watched.

    ``peaks``: bytes of resident memory by role. "server" is the process with the ServerApp, which also drives Ray;
    "workers" the sum over the Ray processes that train, "largest worker" the largest of them; "runtime" all others of
    the tree (the command itself, its guard, Ray's own processes); "all" the sum at one moment. Memory that processes
    share, such as Ray's object store and mapped weights, counts in each of them.
    """

    def __init__(self) -> None:
        self.peaks: dict[str, int] = defaultdict(int)
        self.gpu_bytes: int | None = None
        self.gpu_counted = ""
        self._gpu_before = _used()
        self._root: psutil.Process | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()

    def follow(self, pid: int) -> None:
        """Watch this process and its descendants from now on."""
        self._root = psutil.Process(pid)

    def _watch(self) -> None:
        looks = 0
        while not self._done.wait(_SECONDS):
            if self._root is not None:
                family = _family(self._root)
                self._note(family)
                if self._gpu_before is not None and looks % _LOOKS_A_GPU == 0:
                    self._note_gpu({process.pid for process in family})
                looks += 1

    def _note(self, family: list[psutil.Process]) -> None:
        now: dict[str, int] = defaultdict(int)
        for process in family:
            try:
                role, size = _role(process), process.memory_info().rss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            now[role] += size
            now["all"] += size
            if role == "workers":
                now["largest worker"] = max(now["largest worker"], size)
        for role, size in now.items():
            self.peaks[role] = max(self.peaks[role], size)

    def _note_gpu(self, pids: set[int]) -> None:
        """Memory of these processes; where the driver does not name them, what all GPUs hold more than before."""
        pairs = [line.split(",") for line in ask_gpus("pid,used_memory", "compute-apps")]
        own = [int(size) for pid, size in pairs if int(pid) in pids and size.strip().isdigit()]
        used = _used()
        if own:
            self.gpu_counted, found = "of the run's processes", sum(own) * 2**20
        elif used is not None and self._gpu_before is not None and self.gpu_counted != "of the run's processes":
            self.gpu_counted, found = "in use beyond what was in use before", used - self._gpu_before
        else:
            return
        self.gpu_bytes = max(self.gpu_bytes or 0, found)


def _used() -> int | None:
    """Bytes in use on all GPUs, by whomever; None without a GPU."""
    sizes = ask_gpus("memory.used")
    return sum(int(size) for size in sizes) * 2**20 if sizes and all(size.isdigit() for size in sizes) else None


def _family(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _role(process: psutil.Process) -> str:
    """Ray renames its workers to "ray::...", and its own agents likewise."""
    command = process.cmdline()
    if command and command[0].startswith("ray::") and "Agent" not in command[0]:
        return "workers"
    return "server" if "slimfed.platform.server.simulation" in command and "--scratch" not in command else "runtime"
