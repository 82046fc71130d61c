"""Whole runs through the real Flower runtime and Ray, as a user starts, stops and resumes them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from slimfed.platform import checkpoint
from slimfed.platform.job import load_job
from slimfed.platform.store.queries import Reader
from slimfed.platform.store.store import Store

DEVICES, ROUNDS = 6, 3
JOB = f"""
name = "end-to-end"
seed = 11
[data]
max_length = 32
[fleet]
devices = {DEVICES}
[method]
target_sparsity = 0.4
[training]
rounds = {ROUNDS}
local_steps = 8
batch_size = 4
[evaluation]
devices = 2
[engine]
cohort_size = 2
"""


@dataclass
class Program:
    """One ``slimfed`` process, and every process that was ever seen below it."""

    process: "subprocess.Popen[str]"
    seen: dict[int, psutil.Process] = field(default_factory=dict)

    def watch(self) -> None:
        try:
            below = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return
        self.seen |= {process.pid: process for process in below}

    def until(self, condition: Callable[[], object], seconds: float = 200.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"slimfed ended early: {self.process.communicate()}"
            assert time.monotonic() < deadline, "condition was not met in time"
            self.watch()
            time.sleep(0.1)

    def end(self, seconds: float = 200.0) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            self.watch()
            time.sleep(0.1)
        out, err = self.process.communicate(timeout=max(deadline - time.monotonic(), 1.0))
        return self.process.returncode, out, err

    def left_over(self) -> list[str]:
        """What still runs of all that it started."""
        alive = [p for p in self.seen.values() if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        return [" ".join(p.cmdline()) for p in alive]


@dataclass
class House:
    """A home with a job file."""

    home: Path

    def start(self, *arguments: str) -> Program:
        command = [sys.executable, "-c", "from slimfed.platform.cli import main; main()", *arguments]
        environment = {**os.environ, "SLIMFED_HOME": str(self.home)}
        environment.pop("SLIMFED_STORE", None)
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )
        return Program(process)

    def run(self, *sets: str) -> Program:
        options = [option for each in sets for option in ("--set", each)]
        return self.start("run", str(self.home.parent / "job.toml"), "--json", *options)

    def row(self, name: str) -> Any:
        """The run with this name; None before it is made."""
        if not (self.home / "store.db").exists():
            return None
        with Store.open("sqlite", self.home) as store:
            found = Reader(store.engine).runs(name=name)
            return found[0] if found else None

    def checkpoint(self, run_id: str, round: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return checkpoint.load(checkpoint.path_of(self.home / run_id / "checkpoints", round))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    folder = tmp_path_factory.mktemp("house")
    (folder / "job.toml").write_text(JOB)
    return House(folder / "runs")


@dataclass
class Ended:
    """A run that has ended: exit code, the JSON object it printed, standard error, processes left over."""

    code: int
    summary: dict[str, Any]
    notes: str
    left_over: list[str]


def _end(program: Program) -> Ended:
    code, out, err = program.end()
    return Ended(code, json.loads(out) if out else {}, err, program.left_over())


@pytest.fixture(scope="module")
def undisturbed(house: House) -> Ended:
    return _end(house.run("name=straight", "engine.workers=2"))


@dataclass
class Disturbed:
    """A run with one worker that was stopped after its first round, and then resumed."""

    stopped: Ended
    status: str
    rounds: int
    resumed: Ended


@pytest.fixture(scope="module")
def disturbed(house: House, undisturbed: Ended) -> Disturbed:
    program = house.run("name=broken-off", "engine.workers=1")
    program.until(lambda: (row := house.row("broken-off")) and row.rounds_done >= 1)
    program.process.send_signal(signal.SIGINT)
    stopped = _end(program)
    row = house.row("broken-off")
    return Disturbed(stopped, row.status, row.rounds_done, _end(house.start("resume", row.id, "--json")))


def test_a_run_ends_well_and_prints_one_object(undisturbed: Ended) -> None:
    assert undisturbed.code == 0, undisturbed.notes
    assert undisturbed.left_over == []
    summary = undisturbed.summary
    assert summary["status"] == "done"
    assert (summary["rounds"], summary["devices"]) == (ROUNDS, DEVICES)
    assert 0 <= summary["accuracy"] <= 1
    assert 0 <= summary["device_accuracy_mean"] <= 1
    assert summary["sparsity"] == pytest.approx(0.4, abs=0.05)
    assert summary["virtual_seconds"] > 0
    assert summary["bytes_up"] > 0
    assert summary["bytes_down"] > 0
    assert "round 3/3: accuracy" in undisturbed.notes
    assert "slowest #" in undisturbed.notes


def test_the_store_holds_the_whole_run(house: House, undisturbed: Ended) -> None:
    run_id = undisturbed.summary["run_id"]
    with Store.open("sqlite", house.home) as store:
        reader = Reader(store.engine)
        run = reader.find_run(run_id)
        rounds = reader.rounds(run_id)
        assert [row.round for row in rounds] == [1, 2, 3]
        assert [row.round for row in reader.evaluations(run_id)] == [1, 2, 3]
        assert [row.device for row in reader.devices(run_id)] == list(range(DEVICES))
        assert all(row.examples > 0 for row in reader.devices(run_id))
        by_round = [reader.device_rows(run_id, number) for number in (1, 2, 3)]
        assert reader.checkpoints(run_id)[0].round == ROUNDS
    assert run.status == "done"
    assert run.finished_at is not None
    for rows in by_round:
        assert [row.device for row in rows] == list(range(DEVICES))
        assert {row.status for row in rows} == {"done"}
    sparsities = np.array([[row.sparsity for row in rows] for rows in by_round])
    assert (np.diff(sparsities, axis=0) >= 0).all()
    assert all(row.accuracy is not None for row in by_round[-1])
    assert sum(row.virtual_seconds for row in rounds) == pytest.approx(run.virtual_seconds)
    for row, rows in zip(rounds, by_round, strict=True):
        times = [each.download_seconds + each.compute_seconds + each.upload_seconds for each in rows]
        assert row.virtual_seconds == pytest.approx(max(times))
        assert row.slowest_device == int(np.argmax(times))


def test_the_run_folder_has_the_job_and_the_logs(house: House, undisturbed: Ended) -> None:
    folder = house.home / undisturbed.summary["run_id"]
    job = load_job(folder / "job.toml")
    assert (job.name, job.seed, job.training.rounds) == ("straight", 11, ROUNDS)
    assert "done" in (folder / "logs" / "server.log").read_text()
    assert "Traceback" not in (folder / "logs" / "server.log").read_text()
    assert (folder / "logs" / "superlink.log").read_text()


def test_ctrl_c_stops_the_run_and_leaves_no_process(disturbed: Disturbed) -> None:
    assert disturbed.stopped.code == 130, disturbed.stopped.notes
    assert disturbed.stopped.left_over == []
    assert disturbed.status == "stopped"
    assert disturbed.stopped.summary["status"] == "stopped"
    assert 1 <= disturbed.rounds < ROUNDS
    assert "slimfed resume" in disturbed.stopped.notes


def test_a_resumed_run_equals_the_undisturbed_one_to_the_bit(
    house: House, undisturbed: Ended, disturbed: Disturbed
) -> None:
    """One worker and an interruption against two workers and none."""
    assert disturbed.resumed.code == 0, disturbed.resumed.notes
    assert disturbed.resumed.left_over == []
    first, second = undisturbed.summary, disturbed.resumed.summary
    for name in ("status", "rounds", "accuracy", "device_accuracy_mean", "sparsity", "virtual_seconds", "bytes_up"):
        assert first[name] == second[name], name
    tensors, state = house.checkpoint(first["run_id"], ROUNDS)
    others, other = house.checkpoint(second["run_id"], ROUNDS)
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert np.array_equal(tensor, others[name]), name
    assert state == other


@pytest.fixture(scope="module")
def two_at_once(house: House, disturbed: Disturbed) -> Iterator[tuple[Program, Program]]:
    """Two runs at once; each is at work in Flower and Ray."""
    long = ("training.rounds=200", "engine.workers=1")
    programs = house.run("name=first", *long), house.run("name=second", *long)
    for name, program in zip(("first", "second"), programs, strict=True):
        program.until(lambda name=name: (row := house.row(name)) and row.rounds_done >= 1)  # type: ignore[misc]
    yield programs
    for program in programs:
        if program.process.poll() is None:
            program.process.kill()


def test_stop_from_another_terminal(house: House, two_at_once: tuple[Program, Program]) -> None:
    program, other = two_at_once
    program.watch()
    code, _, notes = house.start("stop", house.row("first").id).end()
    assert code == 0, notes
    ended = _end(program)
    assert ended.code == 1
    assert ended.left_over == []
    assert house.row("first").status == "stopped"
    assert house.row("second").status == "running"
    assert other.process.poll() is None


def test_a_dead_superlink_fails_the_run_with_its_cause(house: House, two_at_once: tuple[Program, Program]) -> None:
    program = two_at_once[1]
    program.watch()
    (superlink,) = [p for p in program.seen.values() if p.is_running() and _is_superlink(p)]
    superlink.kill()
    ended = _end(program)
    assert ended.code == 1
    assert ended.left_over == []
    assert house.row("second").status == "failed"
    assert "SuperLink ended unexpectedly" in house.row("second").cause


def _is_superlink(process: psutil.Process) -> bool:
    return any(Path(part).name == "flower-superlink" for part in process.cmdline()[:2])
