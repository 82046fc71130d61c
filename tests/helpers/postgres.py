"""A PostgreSQL server of the tests' own, in a temporary folder on a free port."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PASSWORD = "not-for-screens"


def binaries() -> Path | None:
    """Where initdb and pg_ctl are; Debian keeps them out of PATH."""
    on_path = shutil.which("initdb")
    folders = [Path(on_path).parent] if on_path else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in reversed(folders) if (folder / "pg_ctl").exists()), None)


@dataclass
class Server:
    """A running server; ``address`` has user and password, and no database name."""

    home: Path
    port: int
    owner: pwd.struct_passwd | None

    @property
    def address(self) -> str:
        return f"postgresql+psycopg://tester:{PASSWORD}@127.0.0.1:{self.port}"

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -k {self.home} -c fsync=off -c shared_buffers=16MB"
        self._control("-l", str(self.home / "log"), "-o", options, "start")

    def stop(self) -> None:
        """At once, whoever is connected."""
        self._control("-m", "immediate", "stop")

    def _control(self, *arguments: str) -> None:
        _run("pg_ctl", ["-D", str(self.home / "data"), "-w", "-t", "60", *arguments], self.owner)


@contextmanager
def private() -> Iterator[Server]:
    """A server of one's own, stopped at the end."""
    home = Path(tempfile.mkdtemp(prefix="slimfed-pg-"))
    owner = _owner()
    if owner is not None:
        os.chown(home, owner.pw_uid, owner.pw_gid)
    (home / "password").write_text(PASSWORD)
    (home / "password").chmod(0o644)
    server = Server(home, _free_port(), owner)
    login = ["--username=tester", f"--pwfile={home / 'password'}", "--auth=scram-sha-256"]
    try:
        _run("initdb", ["-D", str(home / "data"), "--encoding=UTF8", "--locale=C", "--no-sync", *login], owner)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def private_server() -> Iterator[str]:
    """The server's address, with user and password and without a database name. Stopped at the end."""
    with private() as server:
        yield server.address


def _owner() -> pwd.struct_passwd | None:
    """PostgreSQL refuses to run as root."""
    return pwd.getpwnam("postgres") if os.geteuid() == 0 else None


def _run(program: str, arguments: list[str], owner: pwd.struct_passwd | None) -> None:
    folder = binaries()
    assert folder is not None
    identity = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []} if owner else {}
    subprocess.run(
        [str(folder / program), *arguments],
        check=True,
        timeout=120,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **identity,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
