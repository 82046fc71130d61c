"""nginx with the configurations of `deploy`, in front of servers of the tests'."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from loopback import Loopback, free_port
from missing import missing

DEPLOY = Path(__file__).parents[2] / "deploy"


def binary() -> str:
    """Debian keeps it out of a user's PATH."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        missing("nginx is not installed (Debian: apt-get install nginx-light)")
    return found


@contextmanager
def in_front_of(federation: Loopback, folder: Path) -> Iterator[int]:
    """The port of a gate that nodes take in place of the SuperLink's."""
    port = free_port()
    places = {
        " /tmp/": f" {folder}/",
        " /keys/": f" {federation.folder / 'keys'}/",
        "listen 8443": f"listen 127.0.0.1:{port}",
        "https://superlink:8000": f"https://127.0.0.1:{federation.port}",
    }
    with nginx("compose/gate.conf", folder, places):
        yield port


@contextmanager
def nginx(name: str, folder: Path, places: Mapping[str, str]) -> Iterator[None]:
    """A configuration as it is shipped, but for ``places``: what stands there, and what here."""
    program = binary()
    folder.mkdir()
    text = (DEPLOY / name).read_text()
    for there, here in places.items():
        assert there in text
        text = text.replace(there, here)
    (folder / "nginx.conf").write_text(text)
    own = "" if "nginx.pid" in text else f"pid {folder / 'nginx.pid'}; error_log stderr; "
    own += "user root; " if os.geteuid() == 0 else ""
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", f"{own}daemon off;"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            deadline, pid = time.monotonic() + 30, folder / "nginx.pid"
            while not pid.exists() or not pid.read_text().strip():
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(30)
