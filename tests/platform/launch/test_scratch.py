"""The scratch folder: where it is, and what becomes of those that killed runs left behind."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from slimfed.clients.errors import InputError
from slimfed.platform.launch import scratch
from slimfed.platform.launch.scratch import VARIABLE, make_scratch, scratch_base


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files with a short path."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def test_a_folder_left_behind_is_removed_with_its_processes(base: Path) -> None:
    """The launcher and the guard were killed at once, and the rest lives on."""
    left = make_scratch()
    server = subprocess.Popen(["sleep", "120"], env={**os.environ, VARIABLE: str(left.path)})
    worker = subprocess.Popen(["sleep", "120"], cwd=left.path)  # Ray's workers overwrite their environment
    stranger = subprocess.Popen(["sleep", "120"])
    try:
        os.close(left.descriptor)  # as the kernel does
        make_scratch().remove()
        for process in (server, worker):
            process.wait(20)
        assert stranger.poll() is None
        assert list(base.iterdir()) == []
    finally:
        for process in (server, worker, stranger):
            process.kill()
            process.wait()


def test_folders_of_running_runs_and_of_other_programs_stay(base: Path) -> None:
    running = make_scratch()
    (base / "sf-abcdefgh").mkdir()  # no lock: of another program
    second = make_scratch()
    assert {path.name for path in base.iterdir()} == {running.path.name, second.path.name, "sf-abcdefgh"}
    for each in (running, second):
        each.remove()
    assert [path.name for path in base.iterdir()] == ["sf-abcdefgh"]


def test_a_process_that_holds_the_descriptor_keeps_the_folder(base: Path) -> None:
    """As the guard does when the launcher is killed."""
    kept = make_scratch()
    program = [sys.executable, "-c", "import time; time.sleep(120)"]
    guard = subprocess.Popen(program, pass_fds=[kept.descriptor], stdin=subprocess.DEVNULL)
    try:
        os.close(kept.descriptor)
        make_scratch().remove()
        assert kept.path.is_dir()
        assert psutil.pid_exists(guard.pid)
    finally:
        guard.kill()
        guard.wait()


def test_a_path_that_is_too_long_for_sockets_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert scratch_base() == Path("/tmp")
    elsewhere = make_scratch()
    elsewhere.remove()
    assert elsewhere.path.parent == Path("/tmp")
    assert f"TMPDIR = {long} is too long for Ray's sockets: /tmp is used in its place" in caplog.text
    monkeypatch.setattr(scratch, "_OTHERS", (str(long),))
    with pytest.raises(InputError, match=r"Ray's sockets are in it, and their path may have 107, which leaves \d+"):
        scratch_base()


def test_the_longest_path_that_is_taken_has_room_for_rays_sockets() -> None:
    session = "ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store.1"
    longest = "/" + "x" * (scratch._LONGEST - 1)
    assert len(f"{longest}/sf-12345678/{session}") == 107
