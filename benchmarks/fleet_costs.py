"""Cost of security and recovery: TLS with keys, each kind of privacy, and recovery after a kill.

    python benchmarks/fleet_costs.py                    # about five minutes on two quiet cores
    python benchmarks/fleet_costs.py --parts privacy    # one of: tls (and a killed node), privacy, server

Writes the tables of docs/reliability.md. TLS: two federations of real SuperNodes in turn, as `deploy/loopback.sh` makes
them, with TLS and keys and without; then a node of the secure one is killed by SIGKILL in mid-round, and started again
as a service manager would. Privacy: the server's own code with nodes in this process. Server: `slimfed run` on a
simulated fleet is killed with everything it started, then resumed.
"""

import argparse
import http.client
import json
import os
import platform
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from local_run import PrintingRecorder
from readme_table import put

from slimfed.clients.node.runtime import open_runtime
from slimfed.platform.job.job import load_job
from slimfed.platform.launch.preflight import check
from slimfed.platform.server.assembly import assemble, new_fleet
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store
from slimfed.strategies.local_grid import LocalGrid

sys.path.insert(0, str(Path(__file__).parents[1] / "deploy"))  # scripts, not a package
from loopback import Loopback

REPORT = Path(__file__).parents[1] / "docs" / "reliability.md"
NODES, ROUNDS, PATIENCE = 3, 4, 600.0
JOB = """
name = "fleet-costs"
[data]
path = "."
max_length = 16
[training]
rounds = 60
local_steps = 3
batch_size = 4
[evaluation]
devices = 0
every = 100
[deadlines]
quorum = 0.3
"""
SAFE = "bandit.name=random method.importance=random evaluation.devices=0 evaluation.every=100 training.rounds=60"
KINDS = {
    "none": (),
    "central, fixed clipping": ("privacy.kind=central",),
    "central, adaptive clipping": ("privacy.kind=central", "privacy.clipping=adaptive"),
    "local": ("privacy.kind=local",),
}


@contextmanager
def running(command: list[str], home: Path, variables: dict[str, str]) -> Iterator[Callable[..., Any]]:
    """``command`` in the background; what is yielded waits for a condition on the newest run of the home's store."""
    environment = {**os.environ, "SLIMFED_HOME": str(home), **variables}
    with (home.parent / "slimfed.log").open("ab") as log, Store.open("sqlite", home) as store:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)

        def until(condition: Callable[[Reader, Any], Any]) -> Any:
            deadline, reader = time.monotonic() + PATIENCE, Reader(store.engine)
            while time.monotonic() < deadline:
                runs = reader.runs()
                if runs and (found := condition(reader, runs[0])):
                    return found
                if process.poll() is not None:
                    raise RuntimeError(f"slimfed ended with {process.returncode}; see {log.name}")
                time.sleep(0.05)
            raise TimeoutError(f"nothing came within {PATIENCE:.0f} s; see {log.name}")

        try:
            yield until
        finally:
            kill_all(process.pid)
            process.wait(30)


def kill_all(pid: int) -> None:
    """SIGKILL a process and everything that it started."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for each in (*root.children(recursive=True), root):
            with suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGKILL)


def after(rounds: int) -> Callable[[Reader, Any], Any]:
    """The run, once it has finished so many rounds."""
    return lambda _, run: run if run.rounds_done >= rounds else None


def federation(folder: Path, *, secure: bool) -> dict[str, float]:
    """Seconds of a round on real nodes; and, where they have keys, until one that was killed counts again."""
    folder.mkdir()
    (folder / "job.toml").write_text(JOB)
    with Loopback(folder, nodes=NODES, rows=200, secure=secure) as there:
        command = there.job_command(folder / "job.toml")
        with running(command, folder / "runs", there.variables) as until:
            run = until(after(1 + ROUNDS))
            found = _rounds(folder, run.id) | {"request": _request_seconds(there)}
            return found | ({"return": _killed_node_seconds(there, until, run.rounds_done)} if secure else {})


def _rounds(folder: Path, run: str) -> dict[str, float]:
    """Medians over the rounds after the first; ``link`` is what the server waited beside a device's work."""
    with Store.open("sqlite", folder / "runs") as store:
        reader = Reader(store.engine)
        rounds = [row for row in reader.rounds(run) if 1 < row.round <= 1 + ROUNDS]
        devices = [d for row in rounds for d in reader.device_rows(run, row.round) if d.status == "done"]
    return {
        "round": median(row.wall_seconds for row in rounds),
        "work": median(d.compute_seconds for d in devices),
        "link": median(d.download_seconds + d.upload_seconds for d in devices),
    }


def _request_seconds(there: Loopback, times: int = 100) -> float:
    """A connection and a request of next to nothing: what TLS adds to every look of a node."""
    context = ssl.create_default_context(cafile=str(there.folder / "keys" / "ca.crt"))
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        if there.secure:
            connection = http.client.HTTPSConnection("127.0.0.1", there.port, timeout=10, context=context)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", there.port, timeout=10)
        connection.request("GET", "/health")
        connection.getresponse().read()
        connection.close()
        seconds.append(time.perf_counter() - began)
    return median(seconds)


def _killed_node_seconds(there: Loopback, until: Callable[..., Any], rounds: int) -> float:
    """From SIGKILL to the record of the next round in which its device counts."""
    until(after(rounds + 1))
    time.sleep(2.0)  # into the next round
    began = time.monotonic()
    for process in there.below("node-1"):
        process.send_signal(signal.SIGKILL)

    def is_back(reader: Reader, run: Any) -> bool:
        if there.processes["node-1"].poll() is not None:
            time.sleep(1.0)
            there.start_node(1)
        rows = reader.device_rows(run.id, run.rounds_done)
        return run.rounds_done > rounds + 2 and any(row.device == 1 and row.status == "done" for row in rows)

    until(is_back)
    return time.monotonic() - began


def privacy(rounds: int) -> dict[str, dict[str, float]]:
    """Medians over the rounds after the first, by kind: the whole round, and what the server needs to aggregate."""
    found = {}
    for name, sets in KINDS.items():
        job = check(load_job(None, [*SAFE.split(), *sets])).job
        runtime, recorder = open_runtime(job.task_spec()), Counting(rounds)
        with suppress(EnoughError):
            assemble(job, runtime, new_fleet(runtime, job), 1, recorder).start(LocalGrid(1))
        later = recorder.rounds[1:]
        found[name] = {
            "round": median(row.wall_seconds for row in later),
            "aggregate": median(row.phases["server"]["aggregate"] for row in later),
        }
    return found


class EnoughError(Exception):
    """As many rounds as were wanted."""


class Counting(PrintingRecorder):
    """Ends the run after some rounds."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.wanted = rounds

    def record(self, record: Any, tensors: dict, state: dict) -> None:
        """Remember it. Raises :class:`EnoughError` with the last one."""
        super().record(record, tensors, state)
        if len(self.rounds) == self.wanted:
            raise EnoughError


def server(folder: Path) -> dict[str, float]:
    """From the command that resumes a killed run to the record of its next round, and a round of it undisturbed."""
    slimfed = [sys.executable, "-c", "from slimfed.platform.cli import main; main()"]
    home = folder / "runs"
    home.mkdir(parents=True)
    sets = ["--set", "training.rounds=100", "--set", "evaluation.devices=0"]
    with running([*slimfed, "run", *sets], home, {}) as until:
        run = until(after(3))
    began = time.monotonic()
    with running([*slimfed, "resume", run.id], home, {}) as until:
        until(after(run.rounds_done + 1))
        seconds = time.monotonic() - began
        until(after(run.rounds_done + 3))
    with Store.open("sqlite", home) as store:
        rounds = [row.wall_seconds for row in Reader(store.engine).rounds(run.id)]
    return {"resume": seconds, "round": median(rounds[1:])}


def table(found: dict[str, Any]) -> dict[str, str]:
    """Markdown by the name of its place in the report."""
    tables = {}
    if "tls" in found:
        secure, plain = found["tls"]["secure"], found["tls"]["plain"]
        rows = {
            "a connection with one request, ms": ("request", 1e3, 1),
            "link of a device's round (looks for work every 3 s included), s": ("link", 1, 2),
            "work of a device's round, s": ("work", 1, 2),
            "a round, s": ("round", 1, 1),
        }
        lines = [f"| median, {NODES} real nodes | without TLS and keys | with |", "|---|---|---|"]
        lines += [f"| {n} | {plain[k] * f:.{d}f} | {secure[k] * f:.{d}f} |" for n, (k, f, d) in rows.items()]
        tables["tls"] = "\n".join(lines)
    if "privacy" in found:
        lines = ["| `[privacy]` | a round, s | of it to aggregate, s |", "|---|---|---|"]
        lines += [
            f"| {name} | {each['round']:.2f} | {each['aggregate']:.2f} |" for name, each in found["privacy"].items()
        ]
        tables["privacy-cost"] = "\n".join(lines)
    lines = ["| killed by SIGKILL | seconds until the next round that counts is on record |", "|---|---|"]
    if "server" in found:
        each = found["server"]
        what = f"the server with all it started, then `slimfed resume` (a round takes {each['round']:.1f})"
        lines.append(f"| {what} | {each['resume']:.1f} |")
    if "tls" in found:
        what = "a node in mid-round, started again by its service manager"
        lines.append(f"| {what} | {found['tls']['secure']['return']:.0f} |")
    if len(lines) > 2:
        tables["recovery"] = "\n".join(lines)
    machine = f"{os.cpu_count()} cores ({platform.machine()}); load average at the end {os.getloadavg()[0]:.1f}."
    return {name: f"{text}\n\n{machine}" for name, text in tables.items()}


def main() -> None:
    """Measure the parts that are asked for, and write their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--parts", nargs="+", choices=("tls", "privacy", "server"), default=["tls", "privacy", "server"]
    )
    parser.add_argument("--rounds", type=int, default=8, help="of each kind of privacy")
    parser.add_argument("--dry", action="store_true", help="print the tables only")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing goes on without it
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="fleet-costs-") as scratch:
        folder = Path(scratch)
        if "tls" in given.parts:
            both = {name: federation(folder / name, secure=name == "secure") for name in ("plain", "secure")}
            found["tls"] = both
        if "privacy" in given.parts:
            found["privacy"] = privacy(given.rounds)
        if "server" in given.parts:
            found["server"] = server(folder / "server")
    print(json.dumps(found))
    for name, text in table(found).items():
        print(f"\n{text}")
        if not given.dry:
            put(name, text, REPORT)


if __name__ == "__main__":
    main()
