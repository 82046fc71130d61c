"""Whole runs through the real Flower runtime and Ray, as a user starts, stops and resumes them.

Starting takes most of a run's time here, so the runs are started two at a time, in one story that the tests ask about.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import pytest
from missing import missing

from slimfed.clients.builtin.commands import commands
from slimfed.platform.job.job import load_job
from slimfed.platform.server import checkpoint
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import Store

pytestmark = pytest.mark.timeout(900)

DEVICES, ROUNDS, EXAMPLES = 6, 6, 240
PATIENCE = 300.0
"""Seconds; enough for the start of two runs on two cores that have other work, too."""

JOB = f"""
name = "end-to-end"
seed = 11
[data]
path = "./data"
max_length = 32
[fleet]
devices = {DEVICES}
[method]
target_sparsity = 0.4
[training]
rounds = {ROUNDS}
local_steps = 4
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

    def until(self, condition: Callable[[], object], seconds: float = PATIENCE) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"slimfed ended early: {self.process.communicate()}"
            assert time.monotonic() < deadline, "condition was not met in time"
            self.watch()
            time.sleep(0.2)

    def end(self, seconds: float = PATIENCE) -> "Ended":
        """Wait for it."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            self.watch()
            time.sleep(0.2)
        out, err = self.process.communicate(timeout=max(deadline - time.monotonic(), 1.0))
        return Ended(self.process.returncode, json.loads(out) if out else {}, err, self._left_over())

    def kill(self, part: str) -> None:
        """Kill the one running process below it with ``part`` in its command line."""
        self.watch()
        (process,) = [each for each in self.seen.values() if each.is_running() and part in " ".join(each.cmdline())]
        process.kill()

    def _left_over(self) -> list[str]:
        """What still runs of all that it started."""
        alive = [p for p in self.seen.values() if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        return [" ".join(p.cmdline()) for p in alive]


@dataclass
class Ended:
    """A program that has ended: exit code, the JSON object it printed, standard error, processes left over."""

    code: int
    summary: dict[str, Any]
    notes: str
    left_over: list[str]


@dataclass
class House:
    """A home with a job file."""

    home: Path
    store: Store
    temporary: Path
    programs: list[Program] = field(default_factory=list)

    def start(self, *arguments: str) -> Program:
        command = [sys.executable, "-c", "from slimfed.platform.cli import main; main()", *arguments]
        environment = {**os.environ, "SLIMFED_HOME": str(self.home)}
        environment |= {"TMPDIR": str(self.temporary)}
        environment.pop("SLIMFED_STORE", None)
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )
        self.programs.append(Program(process))
        return self.programs[-1]

    def run(self, *sets: str) -> Program:
        options = [option for each in sets for option in ("--set", each)]
        return self.start("run", str(self.home.parent / "job.toml"), "--json", *options)

    @property
    def reader(self) -> Reader:
        return Reader(self.store.engine)

    def row(self, name: str) -> Any:
        """The run with this name; None before it is made."""
        found = self.reader.runs(name=name)
        return found[0] if found else None

    def rounds_done(self, name: str) -> int:
        row = self.row(name)
        return row.rounds_done if row else 0

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """The disk with temporary files, among them Ray's session, is full; nothing if it is not a disk of its own."""
        filler = self.temporary / "filler"
        if self.temporary.is_mount():
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        yield
        filler.unlink(missing_ok=True)

    def checkpoint(self, run_id: str, round: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return checkpoint.load(checkpoint.path_of(self.home / run_id / "checkpoints", round))


@contextmanager
def small_disk() -> Iterator[Path]:
    """A folder with a short path for temporary files; a disk of 96 MB of its own where that may be mounted."""
    with TemporaryDirectory(prefix="e2e", dir="/tmp") as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", folder]
        mounted = subprocess.run(mount, check=False, capture_output=True, timeout=30).returncode == 0
        try:
            yield Path(folder)
        finally:
            if mounted:
                subprocess.run(["umount", "--lazy", folder], check=True, timeout=30)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    (folder / "job.toml").write_text(JOB)
    (folder / "data").mkdir()
    for split, rows in zip(("train", "test"), commands(), strict=True):
        lines = [json.dumps({"text": row.text, "label": row.label}) for row in rows[:EXAMPLES]]
        (folder / "data" / f"{split}.jsonl").write_text("\n".join(lines))
    with small_disk() as temporary, Store.open("sqlite", folder / "runs") as store:
        house = House(folder / "runs", store, temporary)
        yield house
    for program in house.programs:
        if program.process.poll() is None:
            program.process.kill()


@dataclass
class Story:
    """What became of four runs.

    ``undisturbed``: two workers, nothing happens. ``interrupted``: one worker, Ctrl-C after its first round;
    ``resumed``: the same run, resumed, and its only worker killed. ``stopped``: from another terminal, after two rounds
    with a full disk for temporary files. ``orphaned``: the guard of its processes is killed.
    """

    undisturbed: Ended
    interrupted: Ended
    rounds_when_interrupted: int
    status_when_interrupted: str
    resumed: Ended
    stopped: Ended
    stop_command: Ended
    orphaned: Ended


@pytest.fixture(scope="module")
def story(house: House) -> Story:
    """Never more than two runs at once."""
    long = ("training.rounds=200", "engine.workers=1")

    undisturbed = house.run("name=undisturbed", "engine.workers=2")
    interrupted = house.run("name=interrupted", "engine.workers=1")
    interrupted.until(lambda: house.rounds_done("interrupted"))
    interrupted.process.send_signal(signal.SIGINT)
    interrupted_end = interrupted.end()
    row = house.row("interrupted")

    stopped = house.run("name=stopped", *long)
    undisturbed_end = undisturbed.end()

    resumed = house.start("resume", row.id, "--json")
    resumed.until(lambda: house.rounds_done("interrupted") > row.rounds_done)
    before = house.rounds_done("interrupted")
    resumed.kill("ray::ClientAppActor")
    stopped.until(lambda: house.rounds_done("stopped"))
    stopped.until(lambda: house.rounds_done("interrupted") >= min(before + 1, ROUNDS))
    with house.full_disk():
        reached = house.rounds_done("stopped")
        stopped.until(lambda: house.rounds_done("stopped") > reached + 1)
    stop_command = house.start("stop", house.row("stopped").id).end()
    stopped_end = stopped.end()

    orphaned = house.run("name=orphaned", *long)
    resumed_end = resumed.end()
    orphaned.until(lambda: house.rounds_done("orphaned"))
    orphaned.kill("process_guard")
    return Story(
        undisturbed_end,
        interrupted_end,
        row.rounds_done,
        row.status,
        resumed_end,
        stopped_end,
        stop_command,
        orphaned.end(),
    )


def test_a_run_ends_well_and_prints_one_object(story: Story) -> None:
    assert story.undisturbed.code == 0, story.undisturbed.notes
    assert story.undisturbed.left_over == []
    summary = story.undisturbed.summary
    assert summary["status"] == "done"
    assert (summary["rounds"], summary["devices"]) == (ROUNDS, DEVICES)
    assert 0 <= summary["accuracy"] <= 1
    assert 0 <= summary["device_accuracy_mean"] <= 1
    assert summary["sparsity"] == pytest.approx(0.4, abs=0.05)
    assert summary["virtual_seconds"] > 0
    assert summary["bytes_up"] > 0
    assert summary["bytes_down"] > 0
    assert f"round {ROUNDS}/{ROUNDS}: accuracy" in story.undisturbed.notes
    assert "slowest #" in story.undisturbed.notes


def test_the_store_holds_the_whole_run(house: House, story: Story) -> None:
    run_id, numbers = story.undisturbed.summary["run_id"], list(range(1, ROUNDS + 1))
    reader = house.reader
    run, rounds = reader.find_run(run_id), reader.rounds(run_id)
    assert [row.round for row in rounds] == numbers
    assert [row.round for row in reader.evaluations(run_id)] == [0, *numbers]  # 0: the untuned model
    assert [row.device for row in reader.devices(run_id)] == list(range(DEVICES))
    assert sum(row.examples for row in reader.devices(run_id)) == EXAMPLES
    by_round = [reader.device_rows(run_id, number) for number in numbers]
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


def test_the_run_folder_has_the_job_and_the_logs(house: House, story: Story) -> None:
    folder = house.home / story.undisturbed.summary["run_id"]
    job = load_job(folder / "job.toml")
    assert (job.name, job.seed, job.training.rounds) == ("undisturbed", 11, ROUNDS)
    assert "done" in (folder / "logs" / "server.log").read_text()
    assert "Traceback" not in (folder / "logs" / "server.log").read_text()
    assert (folder / "logs" / "simulation.log").read_text()
    assert json.loads((folder / "base.json").read_text())["path"] == job.model.path


def test_ctrl_c_stops_the_run_and_leaves_no_process(story: Story) -> None:
    assert story.interrupted.code == 130, story.interrupted.notes
    assert story.interrupted.left_over == []
    assert story.status_when_interrupted == "stopped"
    assert story.interrupted.summary["status"] == "stopped"
    assert 1 <= story.rounds_when_interrupted < ROUNDS
    assert "slimfed resume" in story.interrupted.notes


def test_a_resumed_run_equals_the_undisturbed_one_to_the_bit(house: House, story: Story) -> None:
    """One worker, an interruption, and the worker killed, against two workers and nothing of this."""
    assert story.resumed.code == 0, story.resumed.notes
    assert story.resumed.left_over == []
    first, second = story.undisturbed.summary, story.resumed.summary
    for name in ("status", "rounds", "accuracy", "device_accuracy_mean", "sparsity", "virtual_seconds", "bytes_up"):
        assert first[name] == second[name], name
    tensors, state = house.checkpoint(first["run_id"], ROUNDS)
    others, other = house.checkpoint(second["run_id"], ROUNDS)
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert np.array_equal(tensor, others[name]), name
    assert state == other


def test_stop_from_another_terminal_stops_one_run_of_two(house: House, story: Story) -> None:
    assert story.stop_command.code == 0, story.stop_command.notes
    assert story.stopped.code == 1
    assert story.stopped.left_over == []
    assert house.row("stopped").status == "stopped"
    assert house.row("interrupted").status == "done", "it was being resumed meanwhile"


def test_a_full_disk_of_rays_session_ends_no_run(house: House, story: Story) -> None:
    """It went on for two rounds, and could be stopped."""
    if not house.temporary.is_mount():
        missing("only root may mount a small disk")
    assert house.row("stopped").status == "stopped"


def test_a_killed_guard_fails_the_run_with_its_cause_and_leaves_nothing(house: House, story: Story) -> None:
    assert story.orphaned.code == 1
    assert story.orphaned.left_over == []
    assert house.row("orphaned").status == "failed"
    assert "the guard of the run's processes was killed by SIGKILL" in house.row("orphaned").cause


def test_no_run_leaves_a_folder_behind(house: House, story: Story) -> None:
    """Neither the killed ones nor the others. PyTorch keeps a cache of its own there."""
    assert [path.name for path in house.temporary.iterdir() if not path.name.startswith("torchinductor")] == []
