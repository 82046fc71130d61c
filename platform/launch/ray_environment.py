"""The environment of a simulated run: Ray for this run and its owner alone.

Everything of Ray listens on 127.0.0.1 only. Other accounts of the machine can connect to that address, so every
connection between Ray's processes is TLS with a key of this run on both sides, and every call has a token of this run.
Both are files in the run's scratch folder, which only its owner can enter. Nothing secret is on a command line.
"""

import datetime
import ipaddress
import os
import secrets
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from slimfed.platform.launch.scratch import VARIABLE

_ADDRESS = "127.0.0.1"
_TOKEN_BYTES = 32
# A run's clock may jump, so its certificate must hold at any time.
_VALID_FROM = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
_VALID_TO = datetime.datetime(2200, 1, 1, tzinfo=datetime.UTC)

# No telemetry. Ray keeps its object store small (a round's messages are a few MB; its default is 30% of the memory).
_SETTINGS = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEFAULT_OBJECT_STORE_MEMORY_PROPORTION": "0.1",
    "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(2 * 1024**3),
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_DEDUP_LOGS": "0",
}
_OWN_RAY = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on every system: Ray takes 127.0.0.1 for the address of this machine
    "AUTOSCALER_METRIC_PORT": "-1",  # a port that cannot be listened on: Ray's monitor serves no figures
    "RAY_AUTH_MODE": "token",
    "RAY_USE_TLS": "1",
}


def own_ray(scratch: Path) -> dict[str, str]:
    """Variables of a Ray that the run starts, after its token, key and certificate are written into ``scratch``."""
    token, key, certificate = scratch / "token", scratch / "key.pem", scratch / "certificate.pem"
    _write_private(token, secrets.token_hex(_TOKEN_BYTES).encode())
    _write_key_pair(key, certificate)
    return {
        **_SETTINGS,
        **_OWN_RAY,
        VARIABLE: str(scratch),
        "FLWR_HOME": str(scratch / "flower"),
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_TLS_SERVER_CERT": str(certificate),
        "RAY_TLS_SERVER_KEY": str(key),
        "RAY_TLS_CA_CERT": str(certificate),
    }


def cluster_ray(scratch: Path, address: str) -> dict[str, str]:
    """Variables of a run on a Ray cluster, whose own security settings stay as the caller has them."""
    return {**_SETTINGS, VARIABLE: str(scratch), "FLWR_HOME": str(scratch / "flower"), "RAY_ADDRESS": address}


def without_foreign_ray(inherited: dict[str, str]) -> dict[str, str]:
    """``inherited`` without what would lead the run's own Ray elsewhere, such as to a cluster of the user's."""
    foreign = ("RAY_ADDRESS", "RAY_NAMESPACE", "RAY_AUTH_TOKEN", "RAY_REDIS_ADDRESS")
    return {name: value for name, value in inherited.items() if name not in foreign}


def _write_key_pair(key_file: Path, certificate_file: Path) -> None:
    """A key, and a certificate that it has signed itself, which both sides of a connection show and trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "slimfed run")])
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(_ADDRESS)), x509.DNSName("localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_VALID_FROM)
        .not_valid_after(_VALID_TO)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem, format = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    _write_private(key_file, key.private_bytes(pem, format, plain))
    _write_private(certificate_file, certificate.public_bytes(pem))


def _write_private(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(content)
