"""What is said about a SuperLink before a run is submitted to it."""

import pwd
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import create_server

import keys
import pytest

from slimfed.clients.errors import InputError
from slimfed.platform.launch.federation import check_connection, login_accounts, open_to_others


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


@contextmanager
def tls_server(folder: Path) -> Iterator[int]:
    """A server that shows the certificate in ``folder``, and says nothing more; yields its port."""
    shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown.load_cert_chain(folder / "server.crt", folder / "server.key")
    with create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with suppress(OSError), shown.wrap_socket(connection, server_side=True):
                        pass

        threading.Thread(target=answer, daemon=True).start()
        yield listener.getsockname()[1]


def test_a_certificate_that_has_expired_or_is_anothers_is_refused_with_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.write_server_files(tmp_path / "good", ["127.0.0.1"])
    keys.write_server_files(tmp_path / "other", ["127.0.0.1"])
    monkeypatch.setattr(keys, "SERVER_DAYS", -1)
    keys.write_server_files(tmp_path / "old", ["127.0.0.1"])

    def checked(shown: str, trusted: str) -> None:
        with tls_server(tmp_path / shown) as port:
            address = f'address = "127.0.0.1:{port}"\nroot-certificates = "{tmp_path / trusted / "ca.crt"}"\n'
            (tmp_path / "config.toml").write_text(f"[superlink.there]\n{address}")
            check_connection("there", {"FLWR_HOME": str(tmp_path)})

    checked("good", "good")
    with pytest.raises(InputError, match=r"--federation 'there': the certificate .* is refused: .*has expired"):
        checked("old", "old")
    with pytest.raises(InputError, match=r"is refused: unable to get local issuer certificate; root-certificates = "):
        checked("good", "other")
