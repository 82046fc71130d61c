"""A run on a Ray cluster of two nodes, both on this machine, each with one processor: both compute.

The cluster answers only who has its token, as docs/cluster.md says.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from slimfed.platform.launch.flwr_cli import program

pytestmark = pytest.mark.timeout(900)

PATIENCE = 400.0
"""Seconds; a quiet machine needs less than a tenth."""

JOB = """
name = "on two machines"
[fleet]
devices = 4
[data]
max_length = 24
[training]
rounds = 1
local_steps = 2
batch_size = 4
[evaluation]
device_examples = 1
[engine]
name = "cohort"
cohort_size = 1
dtype = "fp32"
workers = 2
cluster = "127.0.0.1:{port}"
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ray_node(scratch: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    """One machine of the cluster; ports that are fixed by default are left to the system, for there are two of them."""
    ray = program("ray", {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"})
    ports = ["--min-worker-port=0", "--max-worker-port=0", f"--dashboard-agent-listen-port={free_port()}"]
    options = ["--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats", *ports, *arguments]
    quiet = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", **with_token(scratch)}
    return subprocess.Popen(
        [ray, "start", "--block", *options],
        env=quiet,
        stdin=subprocess.DEVNULL,
        stdout=(scratch / "ray.log").open("ab"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def with_token(scratch: Path) -> dict[str, str]:
    """What every machine of the cluster, and `slimfed`, has in its environment."""
    token = scratch / "token"
    if not token.exists():
        token.write_text("5" * 64)
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}


def raylet(node: "subprocess.Popen[bytes]") -> psutil.Process | None:
    """The process below ``node`` that starts the workers."""
    below = psutil.Process(node.pid).children(recursive=True)
    return next((process for process in below if process.name() == "raylet"), None)


def has_worker(node: "subprocess.Popen[bytes]") -> bool:
    """True if a process below ``node`` serves Flower's messages."""
    try:
        here = raylet(node)
        return here is not None and any("ClientAppActor" in " ".join(each.cmdline()) for each in here.children())
    except psutil.Error:  # one that has just ended
        return False


def wait_until(met, what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not met():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Cluster:
    """The port of its head, its two nodes, and the variables with its token."""

    port: int
    nodes: "list[subprocess.Popen[bytes]]"
    token: dict[str, str]


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Cluster]":
    scratch, port = tmp_path_factory.mktemp("ray"), free_port()
    head = ["--head", "--node-ip-address=127.0.0.1", f"--port={port}", "--include-dashboard=false"]
    nodes = [ray_node(scratch, *head)]
    try:
        wait_until(lambda: answers(port) and raylet(nodes[0]), "the head does not start")
        nodes.append(ray_node(scratch, f"--address=127.0.0.1:{port}", "--node-ip-address=127.0.0.1"))
        wait_until(lambda: raylet(nodes[1]), "the second node does not start")
        yield Cluster(port, nodes, with_token(scratch))
    finally:
        below = [process for node in nodes for process in psutil.Process(node.pid).children(recursive=True)]
        for node in nodes:
            node.terminate()
        psutil.wait_procs(below, timeout=20)
        for process in below:
            if process.is_running():
                process.kill()


def test_both_machines_of_a_cluster_compute(cluster: Cluster, tmp_path: Path) -> None:
    port, nodes = cluster.port, cluster.nodes
    (tmp_path / "job.toml").write_text(JOB.format(port=port))
    run = subprocess.Popen(
        [sys.executable, "-c", "from slimfed.platform.cli import main; main()", "run", "job.toml", "--json"],
        cwd=tmp_path,
        env={**os.environ, "SLIMFED_HOME": str(tmp_path / "home"), **cluster.token},
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "run.log").open("wb"),
        text=True,
    )
    at_work: set[int] = set()

    def ended() -> bool:
        at_work.update(place for place, node in enumerate(nodes) if has_worker(node))
        return run.poll() is not None

    try:
        wait_until(ended, "the run does not end")
    finally:
        run.terminate()
    told, log = run.communicate()[0], (tmp_path / "run.log").read_text()
    assert run.returncode == 0, log
    assert "is used without RAY_AUTH_MODE=token" not in log
    summary = json.loads(told)
    assert summary["status"] == "done"
    assert summary["rounds"] == 1
    assert at_work == {0, 1}
    assert all(node.poll() is None for node in nodes), "the cluster is not ours to end"
