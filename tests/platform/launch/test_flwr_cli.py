"""Flower's command line as a library."""

import subprocess

import pytest

from slimfed.platform.launch.flwr_cli import environment, program


def test_flower_writes_plain_json_where_colours_are_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook's kernel sets FORCE_COLOR."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    variables = environment(None, {})
    command = [program("flwr", variables), "run", "no-such-folder", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=60)
    assert "success" in done.stdout
    assert "\x1b" not in done.stdout
