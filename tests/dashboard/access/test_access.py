"""Who gets in: nobody from elsewhere without a login, no password in the clear, no launching for viewers."""

import io
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from slimfed.dashboard.access import login
from slimfed.dashboard.access import users as users_file
from slimfed.dashboard.access.__main__ import main
from slimfed.dashboard.access.token_gate import TOKEN
from slimfed.dashboard.access.users import AccessError, Person

PASSWORD = "correct horse battery"

PAGE = """
import streamlit as st
from slimfed.dashboard.access.login import may_operate, require_login
person = require_login()
st.write(f"in: {person.name}, {may_operate()}")
"""


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost of a hash is not what is tested here."""
    monkeypatch.setattr(users_file, "_N", 2**4)
    for name in (users_file.USERS, users_file.PEOPLE, TOKEN):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "users"
    users_file.write_user(path, "ada", "operator", PASSWORD)
    users_file.write_user(path, "bob", "viewer", PASSWORD)
    return path


def test_the_file_is_private_and_has_no_password(users: Path) -> None:
    assert stat.S_IMODE(users.stat().st_mode) == 0o600
    lines = users.read_text().splitlines()
    assert PASSWORD not in users.read_text()
    assert lines[0].split(":")[2:] != lines[1].split(":")[2:], "equal passwords look different"


def test_only_the_right_password_admits(users: Path) -> None:
    passwords = users_file.read_users(users)
    assert passwords.admit("ada", PASSWORD) == Person("ada", "operator")
    assert passwords.admit("bob", PASSWORD) == Person("bob", "viewer")
    for name, password in [("ada", ""), ("ada", PASSWORD + " "), ("eve", PASSWORD), ("", "")]:
        assert passwords.admit(name, password) is None


GUESS = st.sampled_from([PASSWORD, "guess", ""])
KNOCKS = st.lists(st.tuples(st.sampled_from(["ada", "bob", "eve"]), GUESS, st.floats(0.0, 90.0)), max_size=40)


@given(knocks=KNOCKS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whoever_guessed_five_times_waits_a_minute_and_nobody_else(users: Path, knocks: list[Any]) -> None:
    """Against a model of one line for each name: how many wrong in a row, and until when it waits."""
    passwords, now = users_file.read_users(users), 1000.0
    wrong, waits = dict.fromkeys(("ada", "bob", "eve"), 0), dict.fromkeys(("ada", "bob", "eve"), 0.0)
    for name, password, later in knocks:
        now += later
        admitted = passwords.admit(name, password, now=now)
        if now < waits[name]:
            assert admitted is None, "the right password waits too"
        elif password == PASSWORD and name != "eve":
            assert admitted is not None, "one's own guesses alone make one wait, and for a minute at most"
            wrong[name] = 0
        else:
            assert admitted is None
            wrong[name] += 1
            if wrong[name] == 5:
                wrong[name], waits[name] = 0, now + 60.0


def test_a_name_that_waits_is_not_freed_by_guessing_at_others(users: Path) -> None:
    passwords = users_file.read_users(users)
    for _ in range(5):
        passwords.admit("ada", "guess", now=0.0)
    for number in range(10_010):
        passwords.admit(f"nobody-{number}", "guess", now=1.0)
    assert passwords.admit("ada", PASSWORD, now=2.0) is None
    assert set(passwords.wrong) == {"ada"}, "names are the visitor's to choose, and cost no memory"


def test_a_changed_password_replaces_the_old_one(users: Path) -> None:
    users_file.write_user(users, "ada", "viewer", "another password")
    passwords = users_file.read_users(users)
    assert passwords.admit("ada", PASSWORD) is None
    assert passwords.admit("ada", "another password") == Person("ada", "viewer")
    assert passwords.admit("bob", PASSWORD) is not None


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_this_computer_needs_no_login(address: str) -> None:
    login.check_address(address, {})


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.1.4", "example.org", ""])
def test_elsewhere_needs_one(address: str, users: Path) -> None:
    with pytest.raises(AccessError, match="needs a login"):
        login.check_address(address, {})
    login.check_address(address, {users_file.USERS: str(users)})


@pytest.mark.parametrize("content", ["ada", "ada:operator:x", "ada:king:YQ==:YQ==", "ada:operator:%%%:YQ=="])
def test_a_malformed_file_lets_nobody_in(tmp_path: Path, content: str) -> None:
    path = tmp_path / "users"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(AccessError, match="line 1"):
        users_file.read_users(path)


def test_a_file_that_others_can_read_is_refused(users: Path) -> None:
    users.chmod(0o644)
    with pytest.raises(AccessError, match="chmod 600"):
        users_file.read_users(users)


def test_people_of_a_provider_have_roles(tmp_path: Path) -> None:
    path = tmp_path / "people"
    path.write_text("Ada@Example.org operator\nbob@example.org\n")
    path.chmod(0o600)
    assert users_file.read_people(path) == {"ada@example.org": "operator", "bob@example.org": "viewer"}
    path.write_text("ada@example.org root\n")
    with pytest.raises(AccessError):
        users_file.read_people(path)


@pytest.mark.parametrize(("name", "password"), [("a:b", PASSWORD), ("a\n", PASSWORD), ("", PASSWORD), ("ada", "x")])
def test_bad_names_and_short_passwords_are_refused(tmp_path: Path, name: str, password: str) -> None:
    with pytest.raises(AccessError):
        users_file.write_user(tmp_path / "users", name, "viewer", password)
    assert not (tmp_path / "users").exists()


def test_the_program_reads_the_password_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(PASSWORD + "\n"))
    assert main([str(tmp_path / "users"), "ada", "--operator"]) == 0
    assert users_file.read_users(tmp_path / "users").admit("ada", PASSWORD) == Person("ada", "operator")


def page(monkeypatch: pytest.MonkeyPatch, address: str) -> AppTest:
    import streamlit as st

    option = st.get_option
    monkeypatch.setattr(st, "get_option", lambda name: address if name == "server.address" else option(name))
    return AppTest.from_string(PAGE, default_timeout=60).run()


def test_a_page_from_elsewhere_shows_nothing_before_the_login(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(users_file.USERS, str(users))
    shown = page(monkeypatch, "0.0.0.0")
    assert not shown.markdown
    shown.text_input[0].input("bob")
    shown.text_input[1].input("wrong password")
    shown.button[0].click().run()
    assert not shown.markdown
    assert "wrong" in shown.error[0].value
    shown.text_input[1].input(PASSWORD)
    shown.button[0].click().run()
    assert shown.markdown[0].value == "in: bob, False"
    os.truncate(users, 0)
    shown.run()
    assert not shown.markdown, "who was taken out of the file is out"


def test_a_page_that_is_open_to_all_by_mistake_lets_nobody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = page(monkeypatch, "0.0.0.0")
    assert not shown.markdown
    assert "Nobody can log in" in shown.error[0].value


def test_the_user_of_this_computer_operates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, "t" * 32)
    assert page(monkeypatch, "127.0.0.1").markdown[0].value.endswith("True")


def test_without_a_token_even_this_computer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = page(monkeypatch, "127.0.0.1")
    assert not shown.markdown
    assert "start it with slimfed dashboard" in shown.error[0].value
