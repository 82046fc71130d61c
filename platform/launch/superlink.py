"""A local Flower SuperLink of our own: started on a free port, asked to run the app, stopped with all it started.

flwr 1.41 serves all its APIs over HTTP on one port (``--host``, ``--port``); nothing else of it listens. Each run has a
Flower home (``FLWR_HOME``) of its own, so neither the user's Flower configuration nor another run is touched.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import psutil
import tomli_w

_CONNECTION = "slimfed"
_START_SECONDS = 60.0
_COMMAND_SECONDS = 60.0
_STOP_SECONDS = 20.0
_PORT_ATTEMPTS = 3
_PROBE_SECONDS = 0.05

# Quiet, private and quick: nothing is reported or looked up, tasks are picked up soon (every look of Flower's, all
# through the run, costs 2 ms), Ray keeps to itself and keeps its object store small (a round's messages are a few MB;
# its default is 30% of the memory).
_SETTINGS = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.25",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEFAULT_OBJECT_STORE_MEMORY_PROPORTION": "0.1",
    "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(2 * 1024**3),
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_DEDUP_LOGS": "0",
}
# A cluster of the user's must not swallow our workers.
_UNSET = ("RAY_ADDRESS", "RAY_TMPDIR", "FLWR_DATABASE", "FLWR_OIDC_ENABLED")


class LaunchError(RuntimeError):
    """The Flower runtime could not be started or used; the text says why, with the last lines of its log."""


@dataclass(frozen=True)
class AppStatus:
    """What Flower says of the app: ``status`` (pending, starting, running, finished:completed, ...) and its details."""

    status: str
    details: str

    @property
    def finished(self) -> bool:
        """True once the app has ended, in whatever way."""
        return self.status.startswith("finished")


class SuperLink:
    """A local SuperLink in simulation mode. Use as a context manager; leaving it ends every process it started."""

    def __init__(self, home: Path, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.log = log
        self._environment = _environment(home, environment or {})
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
        # Between the choice of a port and its use another program may take it.
        for _ in range(_PORT_ATTEMPTS):
            port = _free_port()
            self._spawn(port)
            if self._answers(port):
                self._configure(port)
                return
            self.stop()
        raise LaunchError(f"the Flower SuperLink did not start: {self.last_lines()}")

    def submit(
        self, app: Path, settings: Mapping[str, Any], *, nodes: int, workers: int, gpus: int = 0, gpu_share: float = 0.0
    ) -> str:
        """Ask for a run of ``app`` with the run configuration ``settings``; returns Flower's run id.

        ``nodes`` are simulated SuperNodes, ``workers`` the Ray processes that serve them; Ray has ``gpus`` GPUs and
        gives ``gpu_share`` of one to each worker. Raises :class:`LaunchError`.
        """
        configuration = self.home / "run.toml"
        configuration.write_text(tomli_w.dumps(dict(settings)))
        federation = (
            f"num-supernodes={nodes} client-resources-num-cpus=1 client-resources-num-gpus={gpu_share} "
            f"init-args-num-cpus={workers} init-args-num-gpus={gpus} init-args-log-to-driver=false"
        )
        overrides = ["--run-config", str(configuration), "--federation-config", federation]
        return str(self._flwr("run", str(app), _CONNECTION, *overrides)["run-id"])

    def status(self, run_id: str) -> AppStatus:
        """How the app is doing, as Flower sees it. Raises :class:`LaunchError`."""
        (run,) = self._flwr("ls", _CONNECTION, "--run-id", run_id)["runs"]
        return AppStatus(run["status"], run["status-details"])

    def app_log(self, run_id: str) -> str:
        """What the app has printed so far. Raises :class:`LaunchError`."""
        return self._command("log", run_id, _CONNECTION, "--show")

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
        """Process id of the guard, the parent of all else."""
        if self._guard is None:
            raise LaunchError("the Flower SuperLink was not started")
        return self._guard.pid

    @property
    def alive(self) -> bool:
        """True while the SuperLink runs."""
        return self._guard is not None and self._guard.poll() is None

    def ended_within(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for the SuperLink to be gone; True if it is."""
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
        superlink = [_program("flower-superlink", self._environment), "--insecure", "--simulation"]
        superlink += ["--isolation", "subprocess", "--disable-runtime-dependency-installation"]
        superlink += ["--host", "127.0.0.1", "--port", str(port)]
        guard = [sys.executable, "-m", "slimfed.platform.launch.guard", str(self.log)]
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

    def _flwr(self, *arguments: str) -> dict[str, Any]:
        """Run a ``flwr`` command and return its JSON answer."""
        text = self._command(*arguments, "--format", "json")
        try:
            answer: dict[str, Any] = json.loads(text)
        except json.JSONDecodeError:
            raise LaunchError(f"flwr {arguments[0]} gave no JSON: {_one_line(text)}") from None
        if not answer.get("success"):
            raise LaunchError(f"flwr {arguments[0]} failed: {answer.get('error-message', _one_line(text))}")
        return answer

    def _command(self, *arguments: str) -> str:
        command = [_program("flwr", self._environment), *arguments]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                timeout=_COMMAND_SECONDS,
                start_new_session=True,  # a Ctrl-C in the terminal is for the launcher alone
            )
        except subprocess.TimeoutExpired:
            raise LaunchError(f"flwr {arguments[0]} did not answer within {_COMMAND_SECONDS:.0f} s") from None
        if done.returncode and not done.stdout.lstrip().startswith("{"):
            raise LaunchError(f"flwr {arguments[0]} failed: {_one_line(done.stderr or done.stdout)}")
        return done.stdout


def _environment(home: Path, extra: Mapping[str, str]) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name not in _UNSET}
    # Flower starts its parts by name, and a virtual environment need not be activated to be used.
    places = [str(Path(sys.executable).parent), sysconfig.get_path("scripts"), environment.get("PATH", os.defpath)]
    return {**environment, **_SETTINGS, "PATH": os.pathsep.join(places), "FLWR_HOME": str(home), **extra}


def _program(name: str, environment: Mapping[str, str]) -> str:
    path = shutil.which(name, path=environment["PATH"])
    if path is None:
        raise LaunchError(
            f"program {name} was not found; install slimfed with its server extra: pip install 'slimfed[server]'"
        )
    return path


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


def _one_line(text: str) -> str:
    return " ".join(text.split())[-500:] or "no output"
