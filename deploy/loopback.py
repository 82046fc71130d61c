"""A secured federation on 127.0.0.1: a SuperLink with TLS and node authentication, nodes with text of their own.

What `deploy/loopback.sh` runs, and what the tests do damage to. Every process has a guard that ends it with all it
started as soon as this one is gone, in whatever way.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import keys
import psutil
import tomli_w

from slimfed.clients.builtin.commands import commands
from slimfed.platform.launch.flwr_cli import environment, program

NAME = "loopback"
_START_SECONDS = 120.0
_STOP_SECONDS = 20.0


@dataclass
class Loopback:
    """``nodes`` SuperNodes that each host one device, in ``folder``; use as a context manager.

    ``devices`` have keys and text (default: as many as nodes), of which the first ``nodes`` are there from the start.
    ``rows`` of text each, at most.
    """

    folder: Path
    nodes: int = 5
    devices: int = 0
    rows: int = 1000
    secure: bool = True
    port: int = 0
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def variables(self) -> dict[str, str]:
        """What `slimfed` and `flwr` need to know to find this federation."""
        return {"FLWR_HOME": str(self.folder / "flower"), "SLIMFED_HOME": str(self.folder / "runs")}

    def __enter__(self) -> "Loopback":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Keys and text where they are missing, then the SuperLink, then the nodes."""
        self.devices = max(self.devices, self.nodes)
        if not (self.folder / "keys").exists():
            keys.write_server_files(self.folder / "keys", ["127.0.0.1", "localhost"])
        names = [f"node-{number}" for number in range(self.devices)]
        missing = [name for name in names if not (self.folder / "keys" / f"{name}.key").exists()]
        if missing:
            keys.write_node_files(self.folder / "keys", missing)
        for place in ("data", "flower", "logs"):
            (self.folder / place).mkdir(parents=True, exist_ok=True)
        # Text is made, not given: another number of devices divides it anew.
        if len(list((self.folder / "data").glob("device-*"))) != self.devices:
            shutil.rmtree(self.folder / "data")
            write_text(self.folder / "data", self.devices, self.rows)
        self.forget()
        self.start_superlink()
        for number in range(self.nodes):
            self.register(f"node-{number}")
            self.start_node(number)

    def forget(self) -> None:
        """Begin with an empty SuperLink.

        One that remembers nodes of a moment ago takes them for present, and refuses them for up to a minute.
        """
        for old in (*self.folder.glob("superlink.db*"), *(self.folder / "flower").glob("*.registered")):
            old.unlink()

    def register(self, name: str) -> None:
        """Tell the SuperLink the public key ``name``, once; without TLS there are no keys."""
        told = self.folder / "flower" / f"{name}.registered"
        if self.secure and not told.exists():
            self._flwr("supernode", "register", str(self.folder / "keys" / f"{name}.pub"), NAME)
            told.touch()

    def start_superlink(self) -> None:
        """On the port it had before, if any: nodes come back to it by themselves."""
        self.port = self.port or free_port()
        place = self.folder / "keys"
        tls = ["--ssl-certfile", str(place / "server.crt"), "--ssl-keyfile", str(place / "server.key")]
        tls += ["--ssl-ca-certfile", str(place / "ca.crt"), "--enable-supernode-auth"]
        command = ["flower-superlink", *(tls if self.secure else ["--insecure"])]
        command += ["--isolation", "subprocess", "--disable-runtime-dependency-installation"]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--database", str(self.folder / "superlink.db")]
        trust = {"root-certificates": str(place / "ca.crt")} if self.secure else {"insecure": True}
        connection = {"address": f"127.0.0.1:{self.port}", **trust}
        configuration = {"superlink": {"default": NAME, NAME: connection}}
        (self.folder / "flower" / "config.toml").write_text(tomli_w.dumps(configuration))
        self._spawn("superlink", command)
        self._wait_for_superlink()

    def start_node(self, number: int, name: str = "", *, gate: int = 0, **config: object) -> None:
        """The node of device ``number`` with the key ``name`` (its own); ``config`` overrides its configuration.

        It connects to port ``gate`` if there is one, in place of the SuperLink's.
        """
        name, own = name or f"node-{number}", {"device": number, "data": str(self.folder / "data" / f"device-{number}")}
        place = self.folder / "keys"
        trust = ["--root-certificates", str(place / "ca.crt")]
        trust += ["--auth-supernode-private-key", str(place / f"{name}.key")]
        command = [*self.supernode(name), *(trust if self.secure else ["--insecure"])]
        command += ["--superlink", f"127.0.0.1:{gate or self.port}", "--port", str(free_port())]
        command += ["--node-config", " ".join(f"{key}={json.dumps(value)}" for key, value in {**own, **config}.items())]
        self._spawn(name, command)

    def supernode(self, name: str) -> list[str]:
        """The program of the node with the key ``name``."""
        return ["flower-supernode"]

    def job_command(self, job: Path, *options: str) -> list[str]:
        """What runs ``job`` here: to be started with ``variables`` in its environment."""
        text = f"data.path={json.dumps(str(self.folder / 'data' / 'server'))}"
        own = ["--federation", NAME, "--set", text, "--set", f"fleet.devices={self.devices}"]
        return [sys.executable, "-c", "from slimfed.platform.cli import main; main()", "run", str(job), *own, *options]

    def below(self, name: str) -> list[psutil.Process]:
        """What runs under the guard of ``name``: the program itself, and what it started."""
        try:
            return psutil.Process(self.processes[name].pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def stop(self, *names: str) -> None:
        """End the named processes (none: all) and everything below them."""
        chosen = names or tuple(reversed(self.processes))
        for name in chosen:
            stdin = self.processes[name].stdin
            if stdin is not None:
                stdin.close()
        for name in chosen:
            try:
                self.processes.pop(name).wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                raise RuntimeError(f"{name} did not end within {_STOP_SECONDS:.0f} s") from None

    def _spawn(self, name: str, command: Sequence[str]) -> None:
        # With the tools of this installation, wherever its environment is; and few threads, for there are many nodes.
        given = environment({**self.variables, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})
        guard = [
            sys.executable,
            "-m",
            "slimfed.platform.launch.process_guard",
            str(self.folder / "logs" / f"{name}.log"),
        ]
        self.processes[name] = subprocess.Popen(
            [*guard, program(command[0], given), *command[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=given,
            start_new_session=True,
        )

    def _wait_for_superlink(self) -> None:
        import ssl

        context = ssl.create_default_context(cafile=str(self.folder / "keys" / "ca.crt")) if self.secure else None
        address = f"{'https' if self.secure else 'http'}://127.0.0.1:{self.port}/health"
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self.processes["superlink"].poll() is None:
            try:
                with urllib.request.urlopen(address, timeout=2.0, context=context):
                    return
            except OSError:
                time.sleep(0.2)
        raise RuntimeError(f"the SuperLink did not start; see {self.folder / 'logs' / 'superlink.log'}")

    def nodes_there(self) -> int:
        """How many nodes the SuperLink takes for present."""
        listed = json.loads(self._flwr("supernode", "list", NAME, "--format", "json"))
        return sum(node["status"] == "online" for node in listed["nodes"])

    def _flwr(self, *arguments: str) -> str:
        given = environment(self.variables)
        done = subprocess.run(
            [program("flwr", given), *arguments], env=given, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode:
            raise RuntimeError(f"flwr {' '.join(arguments[:2])} failed: {done.stdout} {done.stderr}")
        return done.stdout


def write_text(folder: Path, devices: int, rows: int = 1000) -> None:
    """Every device gets the requests of some users; the server a test split, and one training row of each label."""
    train, test = commands()
    users = sorted({row.user for row in train})
    shares = {f"device-{d}": [r for r in train if users.index(r.user) % devices == d][:rows] for d in range(devices)}
    first = {row.label: row for row in reversed(train)}
    for name, own in [*shares.items(), ("server", list(first.values()))]:
        place = folder / name
        place.mkdir(parents=True)
        for split, content in (("train", own), ("test", test[:rows])):
            lines = [json.dumps({"text": row.text, "label": row.label}) for row in content]
            (place / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def free_port() -> int:
    """A port of this machine that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> int:
    """Bring the federation up, run a job through it, and take it down; the exit code is the run's."""
    parser = argparse.ArgumentParser(description="Run a job on a secured federation of this machine.")
    parser.add_argument("job", nargs="?", type=Path, default=Path(__file__).with_name("loopback.toml"))
    parser.add_argument("--folder", type=Path, default=Path("slimfed-loopback"), help="keys, text, logs and runs")
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="override a field of the job")
    parser.add_argument("--json", action="store_true", help="print the run as one JSON object at the end")
    given = parser.parse_args()
    if not given.job.is_file():
        parser.error(f"job file '{given.job}': there is no such file")
    with Loopback(given.folder.absolute(), given.nodes) as federation:
        print(f"SuperLink at 127.0.0.1:{federation.port}, {given.nodes} nodes; logs: {federation.folder / 'logs'}")
        options = [word for each in given.set for word in ("--set", each)] + ["--json"] * given.json
        command = federation.job_command(given.job, *options)
        code = subprocess.run(command, env={**os.environ, **federation.variables}, check=False).returncode
    # The run's own last line knows nothing of this folder.
    print(f"with SLIMFED_HOME={federation.variables['SLIMFED_HOME']}; nothing is running any more", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
