"""Who has a name and a role: the password file, and the list of addresses for OpenID Connect."""

import base64
import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from slimfed.clients.errors import SlimfedError

Role = Literal["viewer", "operator"]

USERS, PEOPLE = "SLIMFED_DASHBOARD_USERS", "SLIMFED_DASHBOARD_PEOPLE"
# scrypt, RFC 7914, at the cost that OWASP's password storage cheat sheet names (64 MiB and a good tenth of a second).
_N, _R, _P = 2**16, 8, 1
_MEMORY = 128 * _N * _R * 2
_SHORTEST = 10
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_TRIES, _PAUSE_SECONDS = 5, 60.0


class AccessError(SlimfedError, ValueError):
    """The dashboard cannot tell who may come in; the text says why and what to do. It then lets nobody in."""


@dataclass(frozen=True)
class Person:
    """Somebody who is logged in."""

    name: str
    role: Role


@dataclass(frozen=True)
class _Entry:
    """A line of the password file: role, salt and hash."""

    role: Role
    salt: bytes
    digest: bytes


@dataclass
class Passwords:
    """Checks passwords; after five wrong ones for a name in a row, that name waits for a minute."""

    entries: Mapping[str, _Entry]
    wrong: dict[str, tuple[int, float]] = field(default_factory=dict)

    def admit(self, name: str, password: str, now: float | None = None) -> Person | None:
        """The person, or None. Takes as long for a name that does not exist, and for one that waits."""
        now = time.monotonic() if now is None else now
        entry = self.entries.get(name)
        salt, digest = (entry.salt, entry.digest) if entry else (b"nobody", b"")
        right = hmac.compare_digest(_hashed(password, salt), digest)
        if entry is None:  # not counted: names are the visitor's to choose, and must not crowd out those that wait
            return None
        count, since = self.wrong.get(name, (0, now))
        if count >= _TRIES and now - since < _PAUSE_SECONDS:
            return None
        if right:
            self.wrong.pop(name, None)
            return Person(name, entry.role)
        self.wrong[name] = (1 if count >= _TRIES else count + 1, now)
        return None


def read_users(path: Path) -> Passwords:
    """The password file: ``NAME:ROLE:SALT:HASH`` a line. Raises :class:`AccessError`."""
    entries = {}
    for number, line in enumerate(_lines(path, USERS), 1):
        try:
            name, role, salt, digest = line.split(":")
            entries[name] = _Entry(_role(role), base64.b64decode(salt, validate=True), base64.b64decode(digest))
        except ValueError:
            raise AccessError(f"{USERS} = {path}: line {number} is not NAME:ROLE:SALT:HASH") from None
    return Passwords(entries)


def read_people(path: Path) -> dict[str, Role]:
    """Who may come in through OpenID Connect: an e-mail address a line, and a role. Raises :class:`AccessError`."""
    people: dict[str, Role] = {}
    for number, line in enumerate(_lines(path, PEOPLE), 1):
        words = line.split()
        try:
            people[words[0].lower()] = _role(words[1]) if len(words) == 2 else "viewer"
            if len(words) > 2:
                raise ValueError
        except ValueError:
            raise AccessError(f"{PEOPLE} = {path}: line {number} is not ADDRESS or ADDRESS operator") from None
    return people


def _hashed(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=_N, r=_R, p=_P, maxmem=_MEMORY, dklen=32)


def _lines(path: Path, variable: str) -> list[str]:
    try:
        if path.stat().st_mode & 0o077:
            raise AccessError(f"{variable} = {path}: can be read by others; chmod 600 it")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AccessError(f"{variable} = {path}: cannot be read ({type(error).__name__})") from None
    return [line.strip() for line in lines if line.strip()]


def _role(word: str) -> Role:
    if word == "viewer":
        return "viewer"
    if word == "operator":
        return "operator"
    raise ValueError(word)


def write_user(path: Path, name: str, role: Role, password: str) -> None:
    """Add somebody to the password file, or change what is there of that name. Raises :class:`AccessError`."""
    if not _NAME.fullmatch(name):
        raise AccessError(f"name {name!r}: must be letters, digits and . _ @ -")
    if len(password) < _SHORTEST:
        raise AccessError(f"the password is too short, it needs {_SHORTEST} characters")
    others = [line for line in (_lines(path, USERS) if path.exists() else []) if not line.startswith(f"{name}:")]
    salt = secrets.token_bytes(16)
    coded = [base64.b64encode(part).decode() for part in (salt, _hashed(password, salt))]
    aside = path.with_name(path.name + ".new")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write("\n".join([*others, ":".join([name, role, *coded])]) + "\n")
    aside.replace(path)
