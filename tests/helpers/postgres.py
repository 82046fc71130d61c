"""A PostgreSQL server of the tests' own, in a temporary folder on a free port."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PASSWORD = "not-for-screens"


def binaries() -> Path | None:
    """Where initdb and pg_ctl are; Debian keeps them out of PATH."""
    on_path = shutil.which("initdb")
    folders = [Path(on_path).parent] if on_path else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in reversed(folders) if (folder / "pg_ctl").exists()), None)


@contextmanager
def private_server() -> Iterator[str]:
    """The server's address, with user and password and without a database name. Stopped at the end."""
    home = Path(tempfile.mkdtemp(prefix="slimfed-pg-"))
    owner = _owner()
    if owner is not None:
        os.chown(home, owner.pw_uid, owner.pw_gid)
    (home / "password").write_text(PASSWORD)
    (home / "password").chmod(0o644)
    data, port = home / "data", _free_port()
    login = ["--username=tester", f"--pwfile={home / 'password'}", "--auth=scram-sha-256"]
    options = f"-h 127.0.0.1 -p {port} -k {home} -c fsync=off -c max_connections=20 -c shared_buffers=16MB"
    try:
        _run("initdb", ["-D", str(data), "--encoding=UTF8", "--locale=C", "--no-sync", *login], owner)
        _run("pg_ctl", ["-D", str(data), "-w", "-t", "60", "-l", str(home / "log"), "-o", options, "start"], owner)
        try:
            yield f"postgresql+psycopg://tester:{PASSWORD}@127.0.0.1:{port}"
        finally:
            _run("pg_ctl", ["-D", str(data), "-w", "-t", "60", "-m", "immediate", "stop"], owner)
    finally:
        shutil.rmtree(home, ignore_errors=True)


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
