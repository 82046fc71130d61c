"""Makes what a secured federation needs: a certificate authority, the server's certificate, the nodes' keys.

    python deploy/keys.py server FOLDER --host slimfed.example.org [--host 10.0.0.5]
    python deploy/keys.py node FOLDER NAME [NAME ...]

Nothing is ever overwritten: if one of the files is there, nothing at all is written. Private files can be read by their
owner alone. `ca.key` signs new server certificates and nothing else; keep it off the server.
"""

import argparse
import datetime
import ipaddress
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS, SERVER_DAYS = 3650, 397
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
Files = dict[str, tuple[bytes, int]]


class KeyFilesError(ValueError):
    """Nothing was written; the text says why."""


def write_server_files(folder: Path, hosts: Sequence[str]) -> None:
    """`ca.crt`, `ca.key`, `server.crt` and `server.key` for a server that is reached as any of ``hosts``."""
    authority, server = _new_key(), _new_key()
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "slimfed certificate authority")])
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
    )
    root = (
        _builder(name, name, authority.public_key(), now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, decipher_only=False, **usage),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), critical=False)
        .sign(authority, hashes.SHA384())
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    certificate = (
        _builder(subject, name, server.public_key(), now, SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
        .sign(authority, hashes.SHA384())
    )
    pem = serialization.Encoding.PEM
    _write(
        folder,
        {
            "ca.crt": (root.public_bytes(pem), 0o644),
            "ca.key": (_private(authority, serialization.PrivateFormat.PKCS8), 0o600),
            "server.crt": (certificate.public_bytes(pem), 0o644),
            "server.key": (_private(server, serialization.PrivateFormat.PKCS8), 0o600),
        },
    )


def write_node_files(folder: Path, names: Sequence[str]) -> None:
    """`NAME.key` for the node and `NAME.pub` for the server, which is told with `flwr supernode register`."""
    files: Files = {}
    for name in names:
        if not _NAME.fullmatch(name):
            raise KeyFilesError(f"node name {name!r}: must be letters, digits, dots, dashes and underscores")
        key = _new_key()
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        files[f"{name}.key"] = (_private(key, serialization.PrivateFormat.OpenSSH), 0o600)
        files[f"{name}.pub"] = (public + b"\n", 0o644)
    _write(folder, files)


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def _private(key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime.datetime, days: int
) -> x509.CertificateBuilder:
    begin = now - datetime.timedelta(hours=1)  # a device whose clock is a little behind must not refuse it
    return x509.CertificateBuilder(
        issuer, subject, key, x509.random_serial_number(), begin, now + datetime.timedelta(days=days)
    )


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(folder: Path, files: Files) -> None:
    """All files, or none if one of them is there."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    there = [name for name in files if (folder / name).exists() or (folder / name).is_symlink()]
    if there:
        raise KeyFilesError(f"{folder} has {', '.join(there)} already; nothing is overwritten: name another folder")
    for name, (content, mode) in files.items():
        # O_EXCL: not even a file that appeared in this moment, and never through a link.
        with os.fdopen(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 with the cause if nothing was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    server = kinds.add_parser("server", help="certificate authority and the server's certificate")
    server.add_argument("folder", type=Path)
    server.add_argument("--host", action="append", required=True, help="name or address of the server, repeatable")
    node = kinds.add_parser("node", help="a key pair for each node")
    node.add_argument("folder", type=Path)
    node.add_argument("names", nargs="+", metavar="NAME")
    given = parser.parse_args(arguments)
    try:
        if given.kind == "server":
            write_server_files(given.folder, given.host)
        else:
            write_node_files(given.folder, given.names)
    except (KeyFilesError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"written to {given.folder}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
