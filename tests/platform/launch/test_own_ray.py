"""The Ray of a run belongs to the run's owner: who may connect to it, and what its processes import.

A real one, in the environment of a run, started in a folder whose files have the names of Python's modules, by a user
without HOME, and with a proxy that does not answer.
"""

import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import pytest

from slimfed.platform.launch.scratch import VARIABLE
from slimfed.platform.launch.simulation import Simulation
from slimfed.platform.launch.workers import Sizing

PATIENCE = 120.0
_PROGRAM = """
import json, pathlib, sys, time
from slimfed.platform.server.simulation import _start_ray
_start_ray(1, 0)
import ray
@ray.remote
def told():
    import os, random, queue, statistics
    return {"path": sys.path, "folder": os.getcwd(), "modules": [random.__file__, queue.__file__, statistics.__file__]}
@ray.remote
class Worker:
    def told(self):
        return ray.get(told.remote())
worker = Worker.options(num_cpus=0).remote()
answer = ray.get(worker.told.remote())
pathlib.Path(sys.argv[1] + ".new").write_text(json.dumps(answer))
pathlib.Path(sys.argv[1] + ".new").rename(sys.argv[1])
time.sleep(600)
"""
# A function of each of Ray's services: tables, nodes, jobs, leases, objects, work.
FUNCTIONS = (
    "/ray.rpc.InternalKVGcsService/InternalKVPut",
    "/ray.rpc.NodeInfoGcsService/RegisterNode",
    "/ray.rpc.JobInfoGcsService/AddJob",
    "/ray.rpc.ActorInfoGcsService/RegisterActor",
    "/ray.rpc.NodeManagerService/RequestWorkerLease",
    "/ray.rpc.NodeManagerService/ShutdownRaylet",
    "/ray.rpc.CoreWorkerService/PushTask",
    "/ray.rpc.CoreWorkerService/Exit",
)


@dataclass
class OwnRay:
    """A running Ray: its processes, its scratch folder, what a worker said, and the folder it was started in."""

    processes: list[psutil.Process]
    scratch: Path
    told: str
    started_in: Path

    def listening(self) -> list[tuple[psutil.Process, str, int]]:
        found = []
        for process in self.processes:
            for each in process.net_connections(kind="inet"):
                if each.status == psutil.CONN_LISTEN or (each.type.name == "SOCK_DGRAM" and not each.raddr):
                    found.append((process, each.laddr.ip.removeprefix("::ffff:"), each.laddr.port))
        return found

    def ports(self, part: str) -> list[int]:
        """Ports of the processes with ``part`` in their command line."""
        return [port for process, _, port in self.listening() if part in " ".join(process.cmdline())]

    def alive(self) -> set[int]:
        return {p.pid for p in self.processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE}


@pytest.fixture(scope="module")
def own_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnRay]:
    folder = tmp_path_factory.mktemp("user")
    for name in ("random", "queue", "statistics", "token", "json", "ray"):
        (folder / f"{name}.py").write_text("raise SystemExit('a file of the user was imported')\n")
    answer = tmp_path_factory.mktemp("own-ray") / "answer"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("HOME", raising=False)
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "grpc_proxy", "ALL_PROXY"):
            patch.setenv(name, "http://127.0.0.1:9")
        with Simulation(answer.parent / "log", Sizing(1, 1, 0)) as simulation:
            simulation.start_program([sys.executable, "-c", _PROGRAM, str(answer)])
            deadline = time.monotonic() + PATIENCE
            while not answer.exists():
                assert simulation.alive, simulation.last_words()
                assert time.monotonic() < deadline, simulation.last_words()
                time.sleep(0.1)
            guard = psutil.Process(simulation.pid)
            family = guard.children(recursive=True)
            scratch = Path(guard.environ()[VARIABLE])
            yield OwnRay(family, scratch, answer.read_text(), folder)
            guard.kill()  # the worst way to end: nobody is there to end its processes
            guard.wait(20)
        alive = [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
        assert alive == []
        assert not scratch.exists()


def test_nothing_of_a_run_listens_beyond_this_machine(own_ray: OwnRay) -> None:
    listening = own_ray.listening()
    assert {"gcs_server", "raylet"} <= {process.name() for process, _, _ in listening}
    assert {address for _, address, _ in listening} == {"127.0.0.1"}


def test_ray_answers_only_who_has_the_key_and_the_token_of_the_run(own_ray: OwnRay) -> None:
    certificate, key = ((own_ray.scratch / name).read_bytes() for name in ("certificate.pem", "key.pem"))
    token = (own_ray.scratch / "token").read_text()
    everything = grpc.ssl_channel_credentials(certificate, key, certificate)
    ports = [port for part in ("gcs_server", "raylet/raylet", "ray::Worker") for port in own_ray.ports(part)]
    assert len(ports) >= 4
    answered = set()
    for port in ports:
        for name in FUNCTIONS:
            assert _code(port, name, None, token) == grpc.StatusCode.UNAVAILABLE, "without TLS"
            half = grpc.ssl_channel_credentials(certificate)
            assert _code(port, name, half, token) == grpc.StatusCode.UNAVAILABLE, "without a key"
            answered.add(_code(port, name, everything, None))
            answered.add(_code(port, name, everything, "0" * 64))
    assert answered == {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED}
    tables = own_ray.ports("gcs_server")[0]
    assert _code(tables, "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo", everything, token) == grpc.StatusCode.OK


def test_a_strangers_call_that_would_crash_ray_does_not_reach_it(own_ray: OwnRay) -> None:
    before = own_ray.alive()
    for port in (*own_ray.ports("gcs_server"), *own_ray.ports("raylet/raylet")):
        assert _code(port, "/ray.rpc.syncer.RaySyncer/StartSync", None, None) == grpc.StatusCode.UNAVAILABLE
    time.sleep(1.0)
    assert own_ray.alive() == before


def test_the_agent_of_ray_that_speaks_http_wants_the_token(own_ray: OwnRay) -> None:
    (port,) = own_ray.ports("ray::RuntimeEnvAgent")
    request = urllib.request.Request(f"http://127.0.0.1:{port}/get_or_create_runtime_env", data=b"x", method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10)
    assert refused.value.code == 401


def test_files_in_the_users_folder_take_the_place_of_no_module(own_ray: OwnRay) -> None:
    assert str(own_ray.started_in) not in own_ray.told


def test_nobody_else_can_enter_the_folder_of_rays_session(own_ray: OwnRay) -> None:
    assert own_ray.scratch.stat().st_mode & 0o077 == 0
    assert own_ray.scratch.stat().st_uid == os.getuid()
    assert (own_ray.scratch / "ray").is_dir()


def _code(port: int, name: str, credentials: grpc.ChannelCredentials | None, token: str | None) -> grpc.StatusCode:
    """How a call is answered."""
    address, direct = f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    channel = (
        grpc.insecure_channel(address, direct)
        if credentials is None
        else grpc.secure_channel(address, credentials, direct)
    )
    metadata = [] if token is None else [("authorization", f"Bearer {token}")]
    with channel:
        try:
            channel.unary_unary(name)(b"", timeout=20, metadata=metadata)
        except grpc.RpcError as error:
            code = error.code()
            assert isinstance(code, grpc.StatusCode)
            return code
    return grpc.StatusCode.OK
