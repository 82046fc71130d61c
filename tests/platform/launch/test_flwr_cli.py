"""Flower's command line as a library."""

import subprocess
from pathlib import Path

import pytest

from slimfed.platform.launch.bundle import write_bundle
from slimfed.platform.launch.flwr_cli import Flower, LaunchError, environment, program


def test_flower_writes_plain_json_where_colours_are_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook's kernel sets FORCE_COLOR."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    variables = environment({})
    command = [program("flwr", variables), "run", "no-such-folder", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=60)
    assert "success" in done.stdout
    assert "\x1b" not in done.stdout


def test_calls_to_this_machine_go_to_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own exceptions, in whichever spelling, are kept in both."""
    monkeypatch.setenv("http_proxy", "http://proxy.example.org:3128")
    monkeypatch.setenv("no_proxy", "intranet.example.org")
    monkeypatch.setenv("NO_PROXY", "10.0.0.1, intranet.example.org")
    variables = environment({})
    expected = "intranet.example.org,10.0.0.1,127.0.0.1,localhost,::1"
    assert (variables["no_proxy"], variables["NO_PROXY"]) == (expected, expected)
    assert variables["http_proxy"] == "http://proxy.example.org:3128"


def test_a_missing_program_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slimfed.platform.launch.flwr_cli.shutil.which", lambda *_, **__: None)
    with pytest.raises(LaunchError, match=r"program flwr was not found; install slimfed with its server extra"):
        program("flwr", environment({}))


def test_a_bundle_that_flower_refuses_is_reported(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "app")
    (bundle / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    (tmp_path / "run.toml").write_text("")
    flower = tmp_path / "flower"
    flower.mkdir()
    (flower / "config.toml").write_text('[superlink.there]\naddress = "127.0.0.1:9"\ninsecure = true\n')
    with pytest.raises(LaunchError, match="flwr run failed"):
        Flower(environment({"FLWR_HOME": str(flower)}), "there").submit(bundle, tmp_path / "run.toml")
