"""Who may look at the dashboard, and who may start and stop runs from it.

On this computer's own address a token is enough (``token_gate``): whoever has it is the user who started the dashboard,
and everything is allowed. On any other address nothing is shown without a login, in one of two ways:

* a password file (``SLIMFED_DASHBOARD_USERS``), made with ``python -m slimfed.dashboard.access FILE NAME``;
* OpenID Connect: an ``[auth]`` section in Streamlit's ``secrets.toml``, and ``SLIMFED_DASHBOARD_PEOPLE``, a file with
  an e-mail address a line, followed by the word operator where somebody may launch. Nobody else gets in, and nobody
  whose provider does not say that the address was verified.

A role is "viewer" or "operator". Neither passwords nor their hashes are ever logged or shown.
"""

import getpass
import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path

from slimfed.clients.errors import InputError
from slimfed.dashboard.access.token_gate import TOKEN
from slimfed.dashboard.access.users import PEOPLE, USERS, AccessError, Passwords, Person, Role, read_people, read_users


def is_private(address: str | None) -> bool:
    """True if a server at this address can be reached from this computer alone; without an address it cannot."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address((address or "").strip("[]")).is_loopback
    except ValueError:
        return False


def has_login(environment: Mapping[str, str] = os.environ) -> bool:
    """True if a password file or a list of people is configured; without one the token is asked for."""
    return bool(environment.get(USERS) or environment.get(PEOPLE))


def check_address(address: str, environment: Mapping[str, str] = os.environ) -> None:
    """Raises :class:`AccessError` if the dashboard must not be served there, as nobody could log in."""
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

    if is_private(st.get_option("server.address")) and not has_login() and os.environ.get(TOKEN):
        return Person(getpass.getuser(), "operator")
    try:
        if os.environ.get(USERS):
            return _by_password(Path(os.environ[USERS]))
        if os.environ.get(PEOPLE):
            return _by_provider(read_people(Path(os.environ[PEOPLE])))
        check_address(str(st.get_option("server.address")))
        raise AccessError("the dashboard was started without its token; start it with slimfed dashboard")
    except AccessError as error:
        st.error(f"Nobody can log in: {error}")
    st.stop()
    raise AssertionError("a stopped page does not go on")


def may_operate() -> bool:
    """True if the person at this page may start, stop and resume runs. Ask again where it is done, not only shown."""
    return require_login().role == "operator"


def check_operator() -> None:
    """Raises ``InputError`` unless the person at the page is an operator at this moment."""
    if not may_operate():
        raise InputError("only an operator may do this")


def _by_password(path: Path) -> Person:
    import streamlit as st

    passwords = _passwords(path, path.stat().st_mtime if path.exists() else 0.0)
    person = st.session_state.get("person")
    # Somebody who was taken out of the file, or given another role, is not who he was.
    if isinstance(person, Person) and person.name in passwords.entries:
        return Person(person.name, passwords.entries[person.name].role)
    with st.form("login"):
        st.subheader("slimfed")
        name, password = st.text_input("Name"), st.text_input("Password", type="password")
        if st.form_submit_button("Log in"):
            admitted = passwords.admit(name, password)
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
        st.error("You are logged in, but nobody has given you access.")
        st.button("Log out", on_click=st.logout)
        st.stop()
    return Person(address, people[address])


def _passwords(path: Path, changed: float) -> Passwords:
    """One for all sessions, so that trying in many of them does not help; anew when the file changes."""
    import streamlit as st

    return st.cache_resource(show_spinner=False)(lambda path, changed: read_users(Path(path)))(str(path), changed)
