"""The key script: what it makes is what Flower takes, and what is there stays as it is."""

import datetime
import ipaddress
import os
import ssl
import stat
from pathlib import Path

import keys
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_servers_certificate_is_signed_for_its_hosts_alone(tmp_path: Path) -> None:
    assert keys.main(["server", str(tmp_path), "--host", "fleet.example.org", "--host", "10.0.0.5"]) == 0
    root = x509.load_pem_x509_certificate((tmp_path / "ca.crt").read_bytes())
    server = x509.load_pem_x509_certificate((tmp_path / "server.crt").read_bytes())
    server.verify_directly_issued_by(root)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fleet.example.org"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("10.0.0.5")]
    assert not server.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert server.not_valid_after_utc - datetime.datetime.now(datetime.UTC) < datetime.timedelta(days=398)
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
        tmp_path / "server.crt", tmp_path / "server.key"
    )


def test_a_nodes_key_pair_belongs_together(tmp_path: Path) -> None:
    assert keys.main(["node", str(tmp_path), "kitchen", "hall"]) == 0
    for name in ("kitchen", "hall"):
        private = load_ssh_private_key((tmp_path / f"{name}.key").read_bytes(), None)
        public = load_ssh_public_key((tmp_path / f"{name}.pub").read_bytes())
        assert private.public_key().public_numbers() == public.public_numbers()
    assert (tmp_path / "kitchen.key").read_bytes() != (tmp_path / "hall.key").read_bytes()


def test_private_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        keys.main(["server", str(tmp_path), "--host", "localhost"])
        keys.main(["node", str(tmp_path), "kitchen"])
    finally:
        os.umask(old)
    for path in tmp_path.glob("*.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


@pytest.mark.parametrize("arguments", [["server", "--host", "localhost"], ["node", "hall", "kitchen"]])
def test_nothing_is_overwritten_and_nothing_half_written(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ("server.key" if arguments[0] == "server" else "kitchen.pub")).write_text("precious")
    before = contents(tmp_path)
    assert keys.main([arguments[0], str(tmp_path), *arguments[1:]]) == 2
    assert contents(tmp_path) == before
    assert "nothing is overwritten" in capsys.readouterr().err


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "kitchen.key").symlink_to(tmp_path / "elsewhere")
    assert keys.main(["node", str(tmp_path / "keys"), "kitchen"]) == 2
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["../kitchen", "a/b", "", ".", "-x y"])
def test_a_name_cannot_lead_elsewhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(keys.KeyFilesError):
        keys.write_node_files(tmp_path / "keys", [name])
    assert not (tmp_path / "keys").exists()
