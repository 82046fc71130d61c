"""What is said about a SuperLink before a run is submitted to it."""

import pwd
from pathlib import Path

import pytest

from slimfed.platform.launch.federation import login_accounts, open_to_others


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "config.toml").write_text(
        '[superlink.here]\naddress = "127.0.0.1:8000"\nroot-certificates = "ca.crt"\n'
        '[superlink.there]\naddress = "fleet.example.org:8000"\nroot-certificates = "ca.crt"\n'
    )
    return {"FLWR_HOME": str(tmp_path)}


def test_a_superlink_on_a_machine_with_other_people_is_said_to_be_open_to_them(variables: dict[str, str]) -> None:
    (line,) = open_to_others("here", variables, ["ada", "bob", "cyd", "dan"])
    assert "the SuperLink at 127.0.0.1:8000 runs code for every account of this machine" in line
    assert "ada, bob, cyd ... can log in here" in line
    assert open_to_others("here", variables, []) == ()
    assert open_to_others("there", variables, ["ada"]) == (), "its machine is another one"


def test_accounts_of_people_are_told_from_those_of_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    def account(name: str, number: int, shell: str) -> pwd.struct_passwd:
        return pwd.struct_passwd((name, "x", number, number, "", f"/home/{name}", shell))

    there = [
        account("root", 0, "/bin/bash"),
        account("www-data", 33, "/usr/sbin/nologin"),
        account("me", 1000, "/bin/bash"),
        account("ada", 1001, "/bin/zsh"),
        account("backup", 1002, "/bin/false"),
        account("nobody", 65534, "/usr/sbin/nologin"),
    ]
    monkeypatch.setattr("slimfed.platform.launch.federation.pwd.getpwall", lambda: there)
    monkeypatch.setattr("slimfed.platform.launch.federation.os.getuid", lambda: 1000)
    assert login_accounts() == ("ada",)
