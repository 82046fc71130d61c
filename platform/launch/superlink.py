"""A local Flower SuperLink: started on a free port, runs the app, and is stopped with all its processes.

flwr 1.41 serves all its APIs over HTTP on one port (``--host``, ``--port``); nothing else of it listens. Each run has a
Flower home (``FLWR_HOME``) of its own, so neither the user's Flower configuration nor another run is touched.
"""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import psutil
import tomli_w

from slimfed.platform.launch.flwr_cli import AppStatus, Flower, LaunchError, environment, program

_CONNECTION = "slimfed"
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_PORT_ATTEMPTS = 3
_PROBE_SECONDS = 0.05


class SuperLink:
    """A local SuperLink in simulation mode. Use as a context manager; leaving it ends every process it started."""

    def __init__(self, home: Path, log: Path, variables: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.log = log
        self._environment = environment(home, variables or {})
        self._flower = Flower(self._environment, _CONNECTION)
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "SuperLink":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start on a free port and wait until it answers. Raises :class:`LaunchError`."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # Another program may take the port before it is used.
        for _ in range(_PORT_ATTEMPTS):
            port = _free_port()
            self._spawn(port)
            if self._answers(port):
                self._configure(port)
                return
            self.stop()
        raise LaunchError(f"the Flower SuperLink did not start: {self.last_lines()}")

    def submit(
        self,
        app: Path,
        settings: Mapping[str, Any],
        *,
        nodes: int,
        own: tuple[int, int] | None,
        gpu_share: float = 0.0,
    ) -> str:
        """Ask for a run of ``app`` with the run configuration ``settings``; returns Flower's run id.

        ``nodes`` are simulated SuperNodes, served by Ray processes that get ``gpu_share`` of a GPU each. ``own``:
        processes and GPUs of a local Ray; None: the cluster at ``RAY_ADDRESS`` is used. Raises :class:`LaunchError`.
        """
        configuration = self.home / "run.toml"
        configuration.write_text(tomli_w.dumps(dict(settings)))
        federation = (
            f"num-supernodes={nodes} client-resources-num-cpus=1 client-resources-num-gpus={gpu_share} "
            "init-args-log-to-driver=false"
        )
        if own is not None:
            federation += f" init-args-num-cpus={own[0]} init-args-num-gpus={own[1]}"
        return self._flower.submit(app, configuration, ["--federation-config", federation])

    def status(self, run_id: str) -> AppStatus:
        """Status of the app by Flower. Raises :class:`LaunchError`."""
        return self._flower.status(run_id)

    def app_log(self, run_id: str) -> str:
        """What the app has printed so far. Raises :class:`LaunchError`."""
        return self._flower.app_log(run_id)

    def app_process(self) -> psutil.Process | None:
        """The process that runs the ServerApp and drives Ray; None before it starts and after it ends."""
        try:
            for process in psutil.Process(self.pid).children(recursive=True):
                if _is_app_process(process):
                    return process
        except psutil.NoSuchProcess:
            pass
        return None

    @property
    def pid(self) -> int:
        """Process id of the guard, the ancestor of all other processes."""
        if self._guard is None:
            raise LaunchError("the Flower SuperLink was not started")
        return self._guard.pid

    @property
    def alive(self) -> bool:
        """True while the SuperLink runs."""
        return self._guard is not None and self._guard.poll() is None

    def ended_within(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for the SuperLink's end; True if it has ended."""
        if self._guard is None:
            return True
        try:
            self._guard.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self) -> None:
        """End the SuperLink and all it started. Harmless if it does not run."""
        if self._guard is None:
            return
        stdin: IO[bytes] | None = self._guard.stdin
        if stdin is not None:
            stdin.close()
        try:
            self._guard.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()
        self._guard = None

    def last_lines(self, count: int = 5) -> str:
        """The end of the SuperLink's log, in one line."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return " | ".join(lines[-count:]) or "its log is empty"

    def _spawn(self, port: int) -> None:
        superlink = [program("flower-superlink", self._environment), "--insecure", "--simulation"]
        superlink += ["--isolation", "subprocess", "--disable-runtime-dependency-installation"]
        superlink += ["--host", "127.0.0.1", "--port", str(port)]
        guard = [sys.executable, "-m", "slimfed.platform.launch.process_guard", str(self.log)]
        self._guard = subprocess.Popen(
            [*guard, *superlink],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._environment,
            start_new_session=True,
        )

    def _answers(self, port: int) -> bool:
        """Wait until the SuperLink answers; False if it ended first. Raises :class:`LaunchError` at the deadline."""
        deadline = time.monotonic() + _START_SECONDS
        while self.alive:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2.0):
                    return self.alive
            except (urllib.error.URLError, OSError):
                if time.monotonic() > deadline:
                    raise LaunchError(
                        f"the Flower SuperLink did not answer within {_START_SECONDS:.0f} s: {self.last_lines()}"
                    ) from None
                time.sleep(_PROBE_SECONDS)
        return False

    def _configure(self, port: int) -> None:
        connection = {"address": f"127.0.0.1:{port}", "insecure": True}
        configuration = {"superlink": {"default": _CONNECTION, _CONNECTION: connection}}
        (self.home / "config.toml").write_text(tomli_w.dumps(configuration))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_app_process(process: psutil.Process) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return any(Path(part).name == "flwr-simulation" for part in process.cmdline()[:2])
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
