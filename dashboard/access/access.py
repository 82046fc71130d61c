"""Access to the dashboard: logins, and the roles of viewers and operators.

On 127.0.0.1 everybody who can open the page could also run ``slimfed``, so there is no login and everything is allowed.
On any other address a login is required, in one of two ways:

* a password file (``SLIMFED_DASHBOARD_USERS``), made with ``python -m slimfed.dashboard.access.access FILE NAME``;
* OpenID Connect: an ``[auth]`` section in Streamlit's ``secrets.toml``, and ``SLIMFED_DASHBOARD_PEOPLE``, a file with
  an e-mail address a line, followed by the word operator where somebody may launch. Nobody else gets in, and nobody
  whose provider does not say that the address was verified.

A role is "viewer" or "operator". Neither passwords nor their hashes are ever logged or shown.
"""

import argparse
import base64
import getpass
import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
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
    """The login is misconfigured; the text gives cause and remedy. Nobody can log in then."""


@dataclass(frozen=True)
class Person:
    """A person who is logged in."""

    name: str
    role: Role


@dataclass(frozen=True)
class _Entry:
    """A line of the password file: role, salt and hash."""

    role: Role
    salt: bytes
    digest: bytes


@dataclass
class Doorman:
    """Checks passwords. After five wrong ones in a row a name is locked for a minute."""

    entries: Mapping[str, _Entry]
    wrong: dict[str, tuple[int, float]] = field(default_factory=dict)

    def admit(self, name: str, password: str, now: float | None = None) -> Person | None:
        """The person, or None. Takes the same time for unknown and locked names."""
        now = time.monotonic() if now is None else now
        entry = self.entries.get(name)
        salt, digest = (entry.salt, entry.digest) if entry else (b"nobody", b"")
        right = hmac.compare_digest(_hashed(password, salt), digest)
        if entry is None:  # not counted, as a visitor could otherwise displace locked names with invented ones
            return None
        count, since = self.wrong.get(name, (0, now))
        if count >= _TRIES and now - since < _PAUSE_SECONDS:
            return None
        if right:
            self.wrong.pop(name, None)
            return Person(name, entry.role)
        self.wrong[name] = (1 if count >= _TRIES else count + 1, now)
        return None


def read_users(path: Path) -> Doorman:
    """The password file: ``NAME:ROLE:SALT:HASH`` a line. Raises :class:`AccessError`."""
    entries = {}
    for number, line in enumerate(_lines(path, USERS), 1):
        try:
            name, role, salt, digest = line.split(":")
            entries[name] = _Entry(_role(role), base64.b64decode(salt, validate=True), base64.b64decode(digest))
        except ValueError:
            raise AccessError(f"{USERS} = {path}: line {number} is not NAME:ROLE:SALT:HASH") from None
    return Doorman(entries)


def read_people(path: Path) -> dict[str, Role]:
    """The people allowed through OpenID Connect, a line each: address and role. Raises :class:`AccessError`."""
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


def is_private(address: str | None) -> bool:
    """True if a server at this address can be reached from this computer only; False without an address."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address((address or "").strip("[]")).is_loopback
    except ValueError:
        return False


def check_address(address: str, environment: Mapping[str, str] = os.environ) -> None:
    """Raises :class:`AccessError` if the address needs a login and none is configured."""
    if is_private(address):
        return
    if environment.get(USERS):
        read_users(Path(environment[USERS]))
    elif environment.get(PEOPLE):
        read_people(Path(environment[PEOPLE]))
    else:
        raise AccessError(
            f"--address {address}: can be reached from other computers, so it needs a login; set {USERS} or {PEOPLE} "
            "(docs/security.md), or leave it at 127.0.0.1"
        )


def require_login() -> Person:
    """The person at this page; shows a login and stops the page until there is one. Call it first on every page."""
    import streamlit as st

    if is_private(st.get_option("server.address")) and not (os.environ.get(USERS) or os.environ.get(PEOPLE)):
        return Person(getpass.getuser(), "operator")
    try:
        if os.environ.get(USERS):
            return _by_password(Path(os.environ[USERS]))
        if os.environ.get(PEOPLE):
            return _by_provider(read_people(Path(os.environ[PEOPLE])))
        check_address(str(st.get_option("server.address")))
    except AccessError as error:
        st.error(f"Nobody can log in: {error}")
    st.stop()
    raise AssertionError("a stopped page does not go on")


def may_operate() -> bool:
    """True if the person at this page may start, stop and resume runs. Check it before the action, too."""
    return require_login().role == "operator"


def _by_password(path: Path) -> Person:
    import streamlit as st

    doorman = _doorman(path, path.stat().st_mtime if path.exists() else 0.0)
    person = st.session_state.get("person")
    # A person whose entry was removed or changed must log in again.
    if isinstance(person, Person) and person.name in doorman.entries:
        return Person(person.name, doorman.entries[person.name].role)
    with st.form("login"):
        st.subheader("slimfed")
        name, password = st.text_input("Name"), st.text_input("Password", type="password")
        if st.form_submit_button("Log in"):
            admitted = doorman.admit(name, password)
            if admitted is not None:
                st.session_state["person"] = admitted
                st.rerun()
            st.error("Name or password is wrong, or it was wrong too often: wait a minute.")
    st.stop()
    raise AssertionError("a stopped page does not go on")


def _by_provider(people: Mapping[str, Role]) -> Person:
    import streamlit as st

    if not st.user.is_logged_in:
        st.subheader("slimfed")
        st.button("Log in", on_click=st.login)
        st.stop()
    address = str(st.user.get("email", "")).lower()
    verified = st.user.get("email_verified", False)
    if address not in people or not verified:
        st.error("You are logged in, but you have no access. Ask the operator of this dashboard for it.")
        st.button("Log out", on_click=st.logout)
        st.stop()
    return Person(address, people[address])


def _doorman(path: Path, changed: float) -> Doorman:
    """One for all sessions, so that the lock holds across sessions; recreated when the file changes."""
    import streamlit as st

    return st.cache_resource(show_spinner=False)(lambda path, changed: read_users(Path(path)))(str(path), changed)


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
    """Add a name to the password file, or replace its entry. Raises :class:`AccessError`."""
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Add a name to a password file; the password is read from the terminal, or from standard input."""
    parser = argparse.ArgumentParser(prog="python -m slimfed.dashboard.access.access", description=main.__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("name")
    parser.add_argument("--operator", action="store_true", help="may start, stop and resume runs")
    given = parser.parse_args(arguments)
    password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    try:
        write_user(given.file, given.name, "operator" if given.operator else "viewer", password)
    except (AccessError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
