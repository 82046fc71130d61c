"""The guard and the SuperLink: they start, they answer, and nothing of them is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from slimfed.platform.launch.bundle import write_bundle
from slimfed.platform.launch.superlink import LaunchError, SuperLink

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
    command = [sys.executable, "-m", "slimfed.platform.launch.process_guard", str(folder / "log"), *program]
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
    script = (
        "import subprocess, sys, time;"
        f"g = subprocess.Popen([sys.executable, '-m', 'slimfed.platform.launch.process_guard', "
        f"{str(tmp_path / 'log')!r}, 'sleep', '120'], stdin=subprocess.PIPE, start_new_session=True);"
        "print(g.pid, flush=True); time.sleep(120)"
    )
    launcher = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert launcher.stdout is not None
    guard = int(launcher.stdout.readline())
    _until(lambda: psutil.Process(guard).children())
    sleeper = psutil.Process(guard).children()[0].pid
    launcher.kill()
    launcher.wait()
    _until(lambda: _gone(guard) and _gone(sleeper))


def test_guard_writes_the_programs_output_and_removes_its_scratch_folder(tmp_path: Path) -> None:
    guard = _guard(tmp_path, sys.executable, "-c", "import os; print('scratch', os.environ['RAY_TMPDIR'])")
    assert guard.wait(20) == 1
    word, folder = (tmp_path / "log").read_text().split()
    assert word == "scratch"
    assert not Path(folder).exists()


def test_two_superlinks_run_at_once_and_leave_nothing(tmp_path: Path) -> None:
    with (
        SuperLink(tmp_path / "a" / "flower", tmp_path / "a" / "superlink.log") as first,
        SuperLink(tmp_path / "b" / "flower", tmp_path / "b" / "superlink.log") as second,
    ):
        assert first.alive
        assert second.alive
        assert first.app_process() is None
        processes = [p for link in (first, second) for p in psutil.Process(link.pid).children(recursive=True)]
        assert len(processes) >= 2
    assert all(_gone(p.pid) for p in processes)
    assert not first.alive


def test_a_dead_superlink_is_noticed_and_cleared(tmp_path: Path) -> None:
    with SuperLink(tmp_path / "flower", tmp_path / "superlink.log") as link:
        processes = psutil.Process(link.pid).children(recursive=True)
        program = next(p for p in processes if "flower-superlink" in " ".join(p.cmdline()))
        os.kill(program.pid, signal.SIGKILL)
        _until(lambda: not link.alive)
    assert all(_gone(p.pid) for p in processes)


def test_a_bundle_that_flower_refuses_is_reported(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "app")
    (bundle / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    with (
        SuperLink(tmp_path / "flower", tmp_path / "superlink.log") as link,
        pytest.raises(LaunchError, match="flwr run failed"),
    ):
        link.submit(bundle, {}, nodes=1, own=(1, 0))


def test_a_missing_program_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slimfed.platform.launch.flwr_cli.shutil.which", lambda *_, **__: None)
    with (
        pytest.raises(LaunchError, match=r"flower-superlink was not found; install slimfed with its server extra"),
        SuperLink(tmp_path / "flower", tmp_path / "superlink.log"),
    ):
        pass
