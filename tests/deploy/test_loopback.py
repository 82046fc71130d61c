"""A whole secured federation of real SuperNodes, as `deploy/loopback.sh` starts it, and a job that it survives with.

Three of four devices are there when the run begins. In mid-round a node is killed by SIGKILL, and the worker of another
one; the fourth node joins through the gate (nginx), and a stranger with a key that nobody registered knocks; then the
killed one comes back. One node's clock is four minutes behind all the time. The tests ask what came of it.
"""

import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gate
import keys
import psutil
import pytest
from loopback import NAME, Loopback
from missing import missing

from slimfed.platform.job.job import load_job
from slimfed.platform.launch.flwr_cli import environment, program
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store

pytestmark = pytest.mark.timeout(1800)

PATIENCE = 600.0
DEVICES, ROWS, ROUNDS = 4, 60, 4
KILLED, LAMED, JOINS = 1, 2, 3
SECRET = "zanzibar"  # in every text of every device, and in none of the server's

JOB = f"""
name = "real-nodes"
seed = 5
[data]
path = "."
max_length = 16
[method]
target_sparsity = 0.3
[training]
rounds = {ROUNDS}
local_steps = 3
batch_size = 4
[evaluation]
devices = 2
[deadlines]
reply_seconds = 240
quorum = 0.25
"""

SUPERNODE = """
import sys
from flwr.supernode import fleet_http_connection
from flwr.supernode.cli import flower_supernode

fleet_http_connection.HEARTBEAT_DEFAULT_INTERVAL = 12  # of 30 s: how soon the SuperLink misses a node that is gone
sys.exit(flower_supernode())
"""


# libfaketime 0.9.10 has no time.sleep of Python's (EINVAL), while waiting for a lock works.
SLEEP = """
import threading
import time

time.sleep = lambda seconds: threading.Event().wait(seconds) and None
"""

EXPIRED = (keys.SERVER_DAYS + 1) * 86_400
CLOCKS = {"node-0": -240, "ahead": 3600, "behind": -3600, "before": -7200, "after": EXPIRED}  # beside the SuperLink's


class Federation(Loopback):
    """Its nodes tell twice as often that they are there, so that the test need not wait a minute for a dead one.

    Those of ``CLOCKS``, and all that they start, have the system's clock as wrong as that (libfaketime).
    """

    def supernode(self, name: str) -> list[str]:
        script = self.folder / "supernode.py"
        script.write_text(SUPERNODE)
        return [*(self.wrong_clock(CLOCKS[name]) if name in CLOCKS else []), sys.executable, str(script)]

    def wrong_clock(self, seconds: int) -> list[str]:
        """What a command is put behind to have the system's clock that far off."""
        place = self.folder / "clock"
        place.mkdir(exist_ok=True)
        (place / "sitecustomize.py").write_text(SLEEP)
        return ["env", f"PYTHONPATH={place}", faketime(), "--exclude-monotonic", "-f", f"{seconds:+d}s"]


def faketime() -> str:
    """The program that gives a process another clock."""
    found = shutil.which("faketime")
    if found is None:
        missing("faketime is not installed (Debian: apt-get install faketime)")
    return found


@dataclass
class Story:
    """What is left of the run: the federation, still up, its store's rows, and how its processes ended."""

    federation: Loopback
    gate: int
    code: int
    summary: dict[str, Any]
    notes: str
    run: Any
    rounds: list[Any]
    devices: dict[int, dict[int, Any]]
    events: list[Any]
    stranger_code: int
    killed_in: int
    online: int

    def statuses(self, device: int) -> dict[int, str]:
        """By round."""
        return {number: rows[device].status for number, rows in self.devices.items()}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("federation")
    (folder / "job.toml").write_text(JOB)
    gate.binary()
    faketime()
    with (
        Federation(folder, nodes=DEVICES - 1, devices=DEVICES, rows=ROWS) as federation,
        gate.in_front_of(federation, folder / "gate") as port,
    ):
        mark(federation)
        yield tell(federation, port)


def mark(federation: Loopback) -> None:
    """Put a word into every device's text; their nodes read it when the first round comes."""
    for file in (federation.folder / "data").glob("device-*/*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        file.write_text("\n".join(json.dumps(row | {"text": f"{SECRET} {row['text']}"}) for row in rows))


def tell(federation: Loopback, gate_port: int) -> Story:
    """Run the job, and do the damage while it runs."""
    command = federation.job_command(federation.folder / "job.toml", "--json")
    variables = {**os.environ, **federation.variables}
    variables.pop("SLIMFED_STORE", None)
    pipe = subprocess.PIPE
    slimfed = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=variables, start_new_session=True)
    try:
        keys.write_node_files(federation.folder / "keys", ["stranger"])
        federation.register(f"node-{JOINS}")
        with Store.open("sqlite", federation.folder / "runs") as store:
            reader = Reader(store.engine)

            def rounds_done() -> int:
                return max((run.rounds_done for run in reader.runs()), default=0)

            def until(condition: Callable[[], object]) -> None:
                deadline = time.monotonic() + PATIENCE
                while not condition():
                    assert slimfed.poll() is None, slimfed.communicate()
                    assert time.monotonic() < deadline
                    time.sleep(0.1)

            until(rounds_done)
            began = time.time()
            until(lambda: worker(federation, LAMED, began))
            worker(federation, LAMED, began).kill()
            until(lambda: worker(federation, KILLED, began))
            killed_in = rounds_done() + 1
            kill(federation, f"node-{KILLED}")
            federation.start_node(JOINS, gate=gate_port)
            federation.start_node(KILLED, "stranger")
            until(lambda: ended(federation, "stranger"))
            stranger_code = federation.processes.pop("stranger").returncode
            federation.start_node(KILLED)
            deadline = time.monotonic() + PATIENCE
            while slimfed.poll() is None and time.monotonic() < deadline:
                if ended(federation, f"node-{KILLED}"):  # the SuperLink lets nobody in who is there already, it thinks
                    federation.start_node(KILLED)
                time.sleep(0.5)
            out, notes = slimfed.communicate(timeout=1.0)
            (run,) = reader.runs()
            rounds = reader.rounds(run.id)
            devices = {row.round: {d.device: d for d in reader.device_rows(run.id, row.round)} for row in rounds}
            events = reader.events(run.id)
    finally:
        slimfed.kill()
    summary = json.loads(out) if out else {}
    here, code = online(federation), slimfed.returncode
    return Story(
        federation, gate_port, code, summary, notes, run, rounds, devices, events, stranger_code, killed_in, here
    )


def worker(federation: Loopback, number: int, began: float) -> psutil.Process | None:
    """The ClientApp that the node has begun to run since then; after the first round it is training."""
    for process in federation.below(f"node-{number}"):
        try:
            if process.create_time() > began and any(
                Path(part).name == "flwr-clientapp" for part in process.cmdline()[:2]
            ):
                return process
        except psutil.NoSuchProcess:
            continue
    return None


def ended(federation: Loopback, name: str) -> bool:
    return federation.processes[name].poll() is not None


def kill(federation: Loopback, name: str) -> None:
    """The node and whatever it has started, at once."""
    for process in federation.below(name):
        process.send_signal(signal.SIGKILL)
    assert federation.processes.pop(name).wait(30) == 1, "its guard says that it was not asked for"


def online(federation: Loopback) -> int:
    given = environment(federation.variables)
    command = [program("flwr", given), "supernode", "list", NAME, "--format", "json"]
    done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=120, check=True)
    nodes = json.loads(done.stdout[done.stdout.index("{") :])["nodes"]
    return sum(node["status"] == "online" for node in nodes)


def test_the_run_ends_well_on_real_devices(story: Story) -> None:
    assert story.code == 0, story.notes
    assert story.run.status == story.summary["status"] == "done"
    assert (story.summary["rounds"], story.summary["devices"]) == (ROUNDS, DEVICES)
    assert [row.round for row in story.rounds] == list(range(1, ROUNDS + 1))
    assert 0 <= story.summary["accuracy"] <= 1
    assert story.summary["device_accuracy_mean"] is not None, "devices measure on their own test files"
    assert story.summary["sparsity"] > 0.1
    assert story.summary["rejected_updates"] == 0


def test_time_and_memory_are_measured_in_place_of_the_virtual_clock(story: Story) -> None:
    job = load_job(story.federation.folder / "runs" / story.run.id / "job.toml")
    assert job.fleet.clock == "measured"
    for row in story.rounds:
        done = [each for each in story.devices[row.round].values() if each.status == "done"]
        assert done
        times = [each.download_seconds + each.compute_seconds + each.upload_seconds for each in done]
        assert row.virtual_seconds == pytest.approx(max(times))
        assert 0 < row.virtual_seconds <= row.wall_seconds
        for each in done:
            assert 0 < each.compute_seconds < row.wall_seconds
            assert each.download_seconds > 0
            assert each.peak_memory_bytes > 50e6, "of a process that holds PyTorch, not of a profile"
            assert each.reward is not None, "the bandit does not notice the difference"
            assert each.joules is None


def test_devices_read_their_own_files_and_their_text_goes_nowhere(story: Story) -> None:
    folder = story.federation.folder
    own = {d: len((folder / "data" / f"device-{d}" / "train.jsonl").read_text().splitlines()) for d in range(DEVICES)}
    for rows in story.devices.values():
        assert all(each.examples == own[each.device] for each in rows.values() if each.status == "done")
    searched = [path for path in folder.rglob("*") if path.is_file() and "data" not in path.relative_to(folder).parts]
    assert {"superlink.db", "store.db", "server.log"} <= {path.name for path in searched}
    assert [path for path in searched if SECRET.encode() in path.read_bytes()] == []


def test_a_node_killed_in_mid_round_costs_its_device_that_round_and_comes_back(story: Story) -> None:
    statuses = story.statuses(KILLED)
    assert statuses[story.killed_in] == "failed"
    assert statuses[story.killed_in - 1] == "done"
    assert "done" in [status for number, status in statuses.items() if number > story.killed_in]
    (lost,) = [event for event in story.events if (event.device, event.round) == (KILLED, story.killed_in)]
    assert "heartbeat" in lost.cause, "the round does not wait for its deadline: the SuperLink misses the node"
    assert story.statuses(0)[story.killed_in] == "done", "the others' round counts"


def test_a_worker_killed_in_mid_round_costs_its_device_that_round_at_most(story: Story) -> None:
    """Whether its node starts another one for the same round depends on how far it had come."""
    statuses, lost = story.statuses(LAMED), [event for event in story.events if event.device == LAMED]
    assert {event.kind for event in lost} <= {"device-failed"}
    assert [number for number, status in statuses.items() if status != "done"] == [event.round for event in lost]
    assert len(lost) <= 1


def test_a_node_that_joins_in_mid_run_takes_part(story: Story) -> None:
    statuses = story.statuses(JOINS)
    assert statuses[1] == "failed"
    assert ("absent", 1, JOINS) in [(event.kind, event.round, event.device) for event in story.events]
    assert "done" in statuses.values()


def test_a_node_with_a_key_that_nobody_registered_gets_nothing(story: Story) -> None:
    assert story.stranger_code != 0, "it does not stay"
    assert story.online == DEVICES
    assert not {"device-claimed", "foreign-node"} & {event.kind for event in story.events}
    log = (story.federation.folder / "logs" / "stranger.log").read_text()
    assert "Receiving" not in log


def test_a_node_whose_clock_is_minutes_behind_is_a_node_like_any_other(story: Story) -> None:
    """Its times are in bounds as well, as those of all devices are: they are the server's."""
    assert any("FAKETIME" in variables(each) for each in story.federation.below("node-0"))
    assert set(story.statuses(0).values()) == {"done"}


def variables(process: psutil.Process) -> dict[str, str]:
    """Of a process's environment; none if it has just ended."""
    try:
        return process.environ()
    except psutil.Error:
        return {}


@pytest.fixture(scope="module")
def refusals(story: Story) -> dict[str, str]:
    """What registered nodes write that are refused for their clocks, by name, and the SuperLink. All knock at once."""
    federation, names = story.federation, ["ahead", "behind", "before", "after"]
    keys.write_node_files(federation.folder / "keys", names)
    for name in names:
        federation.register(name)
        federation.start_node(0, name)
    ends = {name: federation.processes.pop(name).wait(PATIENCE) for name in names}
    assert set(ends.values()) == {1}
    return {name: (federation.folder / "logs" / f"{name}.log").read_text() for name in [*names, "superlink"]}


def test_a_registered_node_whose_clock_is_wrong_is_refused(refusals: dict[str, str]) -> None:
    refused = [line for line in refusals["superlink"].splitlines() if "activate-node" in line and line.endswith("401")]
    assert len(refused) == 2, "ahead and behind; the nodes themselves are not told why"
    assert "certificate is not yet valid" in refusals["before"]
    assert "certificate has expired" in refusals["after"], "its own clock says so, as every clock will in a year"


def test_without_tls_and_with_another_authority_nobody_gets_through(story: Story, tmp_path: Path) -> None:
    port = story.federation.port
    with pytest.raises(OSError, match=r"."):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10)
    keys.write_server_files(tmp_path, ["127.0.0.1"])
    stranger = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(f"https://127.0.0.1:{port}/health", timeout=10, context=stranger)


def test_an_unsigned_request_of_a_node_is_refused(story: Story) -> None:
    context = ssl.create_default_context(cafile=str(story.federation.folder / "keys" / "ca.crt"))
    for path in ("activate-node", "pull-messages", "push-messages", "get-fab", "pull-object"):
        address = f"https://127.0.0.1:{story.federation.port}/v1/fleet/{path}"
        request = urllib.request.Request(address, data=b"", method="POST")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10, context=context)
        assert 400 <= refused.value.code < 500, path


def asked(story: Story, path: str, body: bytes = b"") -> int:
    """What the gate answers to a request of nobody's."""
    context = ssl.create_default_context(cafile=str(story.federation.folder / "keys" / "ca.crt"))
    request = urllib.request.Request(f"https://127.0.0.1:{story.gate}{path}", data=body, method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=20, context=context)
    return refused.value.code


def test_the_gate_passes_what_nodes_need_and_nothing_else(story: Story) -> None:
    for path in ("/v1/control/start-run", "/v1/control/register-node", "/v1/runtime/pull-task", "/health", "/"):
        assert asked(story, path) == 403, path
    assert asked(story, "/v1/fleet/../control/start-run") == 403
    assert asked(story, "/v1/fleet/pull-messages") == 415, "the SuperLink's own answer: this is no message of a node"


def test_the_gate_stops_what_is_too_large(story: Story) -> None:
    """An object beyond 64 MB, by its announced size; Flower cuts messages into objects of 5 MB."""
    context = ssl.create_default_context(cafile=str(story.federation.folder / "keys" / "ca.crt"))
    connection = http.client.HTTPSConnection("127.0.0.1", story.gate, timeout=30, context=context)
    connection.request("POST", "/v1/fleet/push-object", headers={"Content-Length": str(64 * 2**20 + 1)})
    assert connection.getresponse().status == 413
    connection.close()


def test_a_federation_in_the_folder_of_one_that_just_ended_has_its_nodes_at_once(tmp_path: Path) -> None:
    """The second SuperLink must not take the first one's nodes for present, and refuse them."""
    made = []
    for _ in range(2):
        with Loopback(tmp_path, nodes=1, rows=20) as federation:
            made.append((tmp_path / "keys" / "node-0.key").read_bytes())
            deadline = time.monotonic() + PATIENCE
            while not federation.nodes_there():
                assert federation.processes["node-0"].poll() is None, "the node was refused"
                assert time.monotonic() < deadline
    assert made[0] == made[1]
