"""The guard and the processes of a simulated run: how they end, and that nothing of them is left behind."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from missing import missing

from slimfed.platform.launch.flwr_cli import LaunchError
from slimfed.platform.launch.scratch import VARIABLE
from slimfed.platform.launch.simulation import Simulation
from slimfed.platform.launch.workers import Sizing

# A program that leaves its session, starts a child that does so too, and is then gone from between them.
_ESCAPES = """
import os, sys, time
folder = sys.argv[1]
for generation in range(2):
    if os.fork():
        os._exit(0) if generation else time.sleep(120)
    os.setsid()
open(os.path.join(folder, "escaped"), "w").write(str(os.getpid()))
time.sleep(120)
"""


def _until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition was not met in time"
        time.sleep(0.02)


def _gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def _guard(folder: Path, *program: str) -> "subprocess.Popen[bytes]":
    (folder / "scratch").mkdir()
    paths = [str(folder / "log"), "--scratch", str(folder / "scratch")]
    command = [sys.executable, "-m", "slimfed.platform.launch.process_guard", *paths, *program]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def _guarded_escapee(folder: Path) -> tuple["subprocess.Popen[bytes]", int]:
    guard = _guard(folder, sys.executable, "-c", _ESCAPES, str(folder))
    written = folder / "escaped"
    _until(lambda: written.exists() and written.read_text())
    return guard, int(written.read_text())


def test_guard_ends_detached_orphans_when_its_input_closes(tmp_path: Path) -> None:
    guard, orphan = _guarded_escapee(tmp_path)
    assert not _gone(orphan)
    assert guard.stdin is not None
    guard.stdin.close()
    assert guard.wait(20) == 0
    assert _gone(orphan)


def test_guard_ends_orphans_when_it_is_terminated(tmp_path: Path) -> None:
    guard, orphan = _guarded_escapee(tmp_path)
    guard.send_signal(signal.SIGTERM)
    assert guard.wait(20) == 0
    assert _gone(orphan)


def test_guard_ends_orphans_when_the_program_dies(tmp_path: Path) -> None:
    guard, orphan = _guarded_escapee(tmp_path)
    for child in psutil.Process(guard.pid).children():
        if child.pid != orphan:
            child.kill()
    assert guard.wait(20) == 1
    assert _gone(orphan)


def test_guard_ends_its_program_when_the_launcher_is_killed(tmp_path: Path) -> None:
    paths = [str(tmp_path / "log"), "--scratch", str(tmp_path / "scratch")]
    guard = [sys.executable, "-m", "slimfed.platform.launch.process_guard", *paths, "sleep", "120"]
    script = (
        "import subprocess, sys, time;"
        f"g = subprocess.Popen({guard!r}, stdin=subprocess.PIPE, start_new_session=True);"
        "print(g.pid, flush=True); time.sleep(120)"
    )
    launcher = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert launcher.stdout is not None
    pid = int(launcher.stdout.readline())
    _until(lambda: psutil.Process(pid).children())
    sleeper = psutil.Process(pid).children()[0].pid
    launcher.kill()
    launcher.wait()
    _until(lambda: _gone(pid) and _gone(sleeper))


def test_guard_writes_the_programs_output_and_end_and_removes_the_scratch_folder(tmp_path: Path) -> None:
    guard = _guard(tmp_path, sys.executable, "-c", "print('output')")
    assert guard.wait(20) == 1
    assert (tmp_path / "log").read_text().splitlines() == ["output", "the program ended with code 0"]
    assert not (tmp_path / "scratch").exists()


def test_a_killed_guard_takes_its_program_with_it(tmp_path: Path) -> None:
    guard = _guard(tmp_path, "sleep", "120")
    _until(lambda: psutil.Process(guard.pid).children())
    sleeper = psutil.Process(guard.pid).children()[0].pid
    guard.kill()
    guard.wait(20)
    _until(lambda: _gone(sleeper))


def _simulation(folder: Path) -> Simulation:
    return Simulation(folder / "simulation.log", Sizing(1, 1, 0))


def _scratch_of(simulation: Simulation) -> Path:
    guard = psutil.Process(simulation.pid)
    _until(lambda: VARIABLE in guard.environ())  # from when on it is the guard, not a copy of this process
    return Path(guard.environ()[VARIABLE])


def test_two_simulations_run_at_once_and_leave_nothing(tmp_path: Path) -> None:
    with _simulation(tmp_path / "a") as first, _simulation(tmp_path / "b") as second:
        for simulation in (first, second):
            simulation.start_program(["sleep", "120"])
        _until(lambda: all(psutil.Process(each.pid).children() for each in (first, second)))
        assert first.ailment() is None
        scratch = [_scratch_of(each) for each in (first, second)]
        assert len(set(scratch)) == 2
        processes = [p for each in (first, second) for p in psutil.Process(each.pid).children(recursive=True)]
    assert all(_gone(p.pid) for p in processes)
    assert not any(folder.exists() for folder in scratch)
    assert not first.alive


@pytest.mark.parametrize("victim", ["guard", "program"])
def test_a_killed_process_is_noticed_and_everything_cleared(tmp_path: Path, victim: str) -> None:
    """Also what has left the session, and is nobody's child any more, as Ray's workers."""
    with _simulation(tmp_path) as simulation:
        simulation.start_program([sys.executable, "-c", _ESCAPES, str(tmp_path)])
        written = tmp_path / "escaped"
        _until(lambda: written.exists() and written.read_text())
        escapee, scratch = int(written.read_text()), _scratch_of(simulation)
        (program,) = [p for p in psutil.Process(simulation.pid).children() if p.pid != escapee]
        os.kill(simulation.pid if victim == "guard" else program.pid, signal.SIGKILL)
        _until(lambda: not simulation.alive)
        ailment = simulation.ailment()
    assert ailment is not None
    assert f"{victim if victim == 'guard' else 'process'} of the run" in ailment
    assert "was killed by SIGKILL" in ailment
    assert _gone(escapee)
    assert not scratch.exists()


def test_a_simulation_says_how_its_program_ended(tmp_path: Path) -> None:
    with _simulation(tmp_path) as simulation:
        simulation.start_program([sys.executable, "-c", "import sys; sys.exit('no ray')"])
        _until(lambda: not simulation.alive)
        expected = "the process of the run ended unexpectedly: no ray | the program ended with code 1"
        assert simulation.ailment() == expected


def test_nothing_secret_is_on_a_command_line_and_the_secrets_are_the_owners_alone(tmp_path: Path) -> None:
    with _simulation(tmp_path) as simulation:
        simulation.start_program(["sleep", "120"])
        scratch = _scratch_of(simulation)
        token = (scratch / "token").read_text()
        _until(lambda: psutil.Process(simulation.pid).children())
        tree = [psutil.Process(simulation.pid), *psutil.Process(simulation.pid).children(recursive=True)]
        assert not any(token in " ".join(process.cmdline()) for process in tree)
        assert not any(token in value for process in tree for value in process.environ().values())
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (scratch, *scratch.iterdir())}
    files = ("lock", "token", "key.pem", "certificate.pem")
    assert modes == {scratch.name: 0o700, "progress": 0o700, **dict.fromkeys(files, 0o600)}


def test_a_full_disk_for_temporary_files_is_said_and_left_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as disk:
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]
        if subprocess.run(mount, check=False, capture_output=True, timeout=30).returncode:
            missing("only root may mount a small disk")
        try:
            with suppress(OSError), (Path(disk) / "filler").open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            monkeypatch.setattr(tempfile, "tempdir", disk)
            with (
                pytest.raises(LaunchError, match=r"the run's files cannot be written \(No space left on device\)"),
                _simulation(tmp_path) as simulation,
            ):
                simulation.start_program(["sleep", "120"])
            assert [path.name for path in Path(disk).iterdir()] == ["filler"]
        finally:
            subprocess.run(["umount", "--lazy", disk], check=True, timeout=30)
