"""Serves the dashboard: ``python -m slimfed.dashboard.serve --port 8501``."""

import argparse
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile

from slimfed.clients.errors import InputError
from slimfed.dashboard.access.login import check_address, has_login
from slimfed.dashboard.access.token_gate import PARAMETER, TOKEN, chosen_token, cookie_name, new_token
from slimfed.dashboard.access.users import AccessError
from slimfed.platform.launch.child_environment import child_environment
from slimfed.platform.launch.ports import refuse_port_in_use

APP = Path(__file__).with_name("web.py")
START_SECONDS = 180.0
STOP_SECONDS = 15.0


@dataclass(frozen=True)
class Served:
    """A dashboard that answers: its address without a path, and the token of its visitors."""

    address: str
    token: str

    def url(self, path: str = "/") -> str:
        """The whole address of a page (``/run?run=ID``), with the token, for a browser that was not here before."""
        return f"{self.address}{path}{'&' if '?' in path else '?'}{PARAMETER}={self.token}"

    def new_cookie(self) -> str:
        """The ``Cookie`` header of a visitor who shows the token now."""
        port = self.address.rsplit(":", 1)[1]
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar := CookieJar()))
        opener.open(self.url(), timeout=START_SECONDS).close()
        return next(f"{each.name}={each.value}" for each in jar if each.name == cookie_name(port))


def arguments(port: int, address: str) -> list[str]:
    """Arguments of ``streamlit``: no browser window, no telemetry, no file watching."""
    options = {
        "server.port": port,
        "server.address": address,
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "server.runOnSave": "false",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "viewer",
        "client.showErrorDetails": "none",
        "theme.light.primaryColor": "#0072B2",
        "theme.dark.primaryColor": "#56B4E9",
        "logger.hideWelcomeMessage": "true",
    }
    return ["run", str(APP), *(f"--{name}={value}" for name, value in options.items())]


def warm_up() -> None:
    """Import and call what the pages need in advance, since it takes the first visitor seconds otherwise."""
    from slimfed.dashboard import widgets
    from slimfed.dashboard.figures import curves, frames
    from slimfed.dashboard.launching import inputs

    for page in ("runs", "run", "compare", "fleet"):
        import_module(f"slimfed.dashboard.views.{page}")
    inputs.names()
    nothing = frames.rounds_frame([], [])
    curves.accuracy(nothing, "round").to_json()
    widgets.parquet(nothing)


@contextmanager
def serving(environment: dict[str, str]) -> Iterator[Served]:
    """Context with the dashboard in a separate process, on a free port of this computer.

    Yields its address and token once it answers. Raises ``RuntimeError`` with its output if that takes longer than
    three minutes.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    served = Served(f"http://127.0.0.1:{port}", new_token())
    command = [sys.executable, "-m", "slimfed.dashboard.serve", "--port", str(port)]
    variables = child_environment() | {TOKEN: served.token} | environment
    with TemporaryFile() as log:
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=subprocess.STDOUT)
        try:
            if not _answers(process, f"{served.address}/_stcore/health"):
                log.seek(0)
                raise RuntimeError(f"the dashboard did not start:\n{log.read().decode(errors='replace')}")
            yield served
        finally:
            process.terminate()
            try:
                process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=STOP_SECONDS)


def _answers(process: subprocess.Popen[bytes], url: str) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    return False


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m slimfed.dashboard.serve", description="Serve slimfed's dashboard.")
    parser.add_argument("--port", type=int, default=8501, help="default 8501")
    parser.add_argument("--address", default="127.0.0.1", help="default 127.0.0.1: this computer only")
    given = parser.parse_args(argv)
    try:
        check_address(given.address)
        # In the environment, which no other account can read; the list of processes shows arguments to all.
        os.environ[TOKEN] = "" if has_login() else chosen_token()
        refuse_port_in_use(given.port, given.address)
    except (AccessError, InputError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    from streamlit.web import cli

    warm_up()
    host = f"[{given.address}]" if ":" in given.address else given.address
    served = Served(f"http://{host}:{given.port}", os.environ[TOKEN])
    print(f"slimfed dashboard: {served.url() if served.token else served.address}", file=sys.stderr)
    cli.main(arguments(given.port, given.address))


if __name__ == "__main__":
    main()
