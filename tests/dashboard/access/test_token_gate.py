"""The token of a dashboard without a login: another account, which can reach the port, gets nothing."""

import asyncio
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from slimfed.dashboard.access.token_gate import TOKEN, TokenGate, chosen_token, cookie_name
from slimfed.dashboard.access.users import AccessError
from slimfed.dashboard.serve import Served

SECRET = "a-token-of-this-test-alone"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "seen"})


GATE = TokenGate(app, SECRET, "slimfed-8501")


def ask(target: str, cookie: str = "", kind: str = "http", gate: TokenGate = GATE) -> list[Message]:
    """What the gate sends for one request of ``target`` (path and query); ``SEEN`` if it lets it through."""
    path, _, query = target.partition("?")
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": f"{kind}.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"cookie", cookie.encode("latin-1"))] if cookie else []
    scope = {"type": kind, "path": path, "query_string": query.encode(), "headers": headers}
    # In a thread of its own: the browser's tests leave a running event loop in this one.
    with ThreadPoolExecutor(1) as alone:
        alone.submit(asyncio.run, gate(scope, receive, send)).result(timeout=30)
    return sent


def header(answer: list[Message], name: str) -> str:
    return dict(answer[0]["headers"]).get(name.encode(), b"").decode()


SEEN = [{"type": "seen"}]
RIGHT = header(ask(f"/?token={SECRET}"), "set-cookie").partition(";")[0]
OTHER_PORT = RIGHT.replace("8501", "8502")
WRONG = ["", "slimfed-8501=wrong", f"slimfed-8501={SECRET}", OTHER_PORT, f"{RIGHT}x", RIGHT[:-1], "=;;;", "\xff=\x00"]


@pytest.mark.parametrize("path", ["/", "/run?run=last", "/_stcore/host-config", "/static/js/x.js", "/media/a.csv"])
@pytest.mark.parametrize("token", ["", "token=", "token=wrong", f"token={SECRET}x", f"token={SECRET[:-1]}", "token=é"])
def test_nothing_is_told_without_the_token(path: str, token: str) -> None:
    answer = ask(f"{path}{'&' if '?' in path else '?'}{token}")
    assert answer[0]["status"] == 403
    assert b"slimfed dashboard" in answer[1]["body"], "the page says where the token is"
    assert not header(answer, "set-cookie")


@pytest.mark.parametrize("cookie", WRONG, ids=range(len(WRONG)))
def test_a_wrong_cookie_opens_neither_page_nor_websocket(cookie: str) -> None:
    assert ask("/", cookie)[0]["status"] == 403
    assert [sent["type"] for sent in ask(f"/_stcore/stream?token={SECRET}", cookie, "websocket")] == ["websocket.close"]


def test_the_page_that_asks_leads_on_and_runs_nothing() -> None:
    body = ask("/run?run=last&token=wrong&tab=%22%3E%3Cscript%3E")[1]["body"].decode()
    assert 'name="run" value="last"' in body
    assert "<script" not in body
    assert "wrong" not in body


def test_the_first_visit_turns_the_token_into_a_cookie() -> None:
    answer = ask(f"/run?run=last&token={SECRET}&tab=A+b")
    assert (answer[0]["status"], header(answer, "location")) == (303, "/run?run=last&tab=A+b")
    cookie, *flags = header(answer, "set-cookie").split("; ")
    assert set(flags) == {"HttpOnly", "SameSite=Lax", "Path=/"}
    assert ask("/run?run=last", f"other=1; {cookie}") == SEEN
    assert ask("/_stcore/stream", cookie, "websocket") == SEEN


@pytest.mark.parametrize("other", ['a={"b":1}', "a b=1", "flag", "ä=ö", "a=1,2", '="'])
def test_cookies_of_other_programs_do_not_hide_it(other: str) -> None:
    assert ask("/", f"{other}; {RIGHT}") == SEEN
    assert ask("/", f"{RIGHT}; {other}") == SEEN


def test_a_cookie_is_of_one_start() -> None:
    """Other ports of the address see it; with a token that is set by hand it would open every later start."""
    assert ask("/", RIGHT, gate=TokenGate(app, SECRET, "slimfed-8501"))[0]["status"] == 403


@given(path=st.text(max_size=8))
def test_the_redirect_never_leaves_this_server(path: str) -> None:
    answer = ask(f"/{path.replace('?', '')}?token={SECRET}")
    assert answer[0]["status"] == 303
    assert re.fullmatch(r"/(?![/\\])[!-~]*", header(answer, "location"))


def test_the_health_check_needs_none_and_a_login_replaces_it() -> None:
    assert ask("/_stcore/health") == SEEN
    assert ask("/run", gate=TokenGate(app, "", "slimfed-8501")) == SEEN, "the login's page must come through"


def test_a_token_can_be_chosen_but_not_a_short_one() -> None:
    assert chosen_token({TOKEN: SECRET}) == SECRET
    assert chosen_token({TOKEN: ""}) != chosen_token({})
    assert len(chosen_token({})) >= 32
    with pytest.raises(AccessError, match="at least 16"):
        chosen_token({TOKEN: "short"})
    with pytest.raises(AccessError, match="at least 16"):
        chosen_token({TOKEN: "sixteen and more; Path=/"})


@pytest.fixture(scope="module")
def served(serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("home")) as started:
        yield started


@pytest.mark.parametrize("path", ["/", "/launch", "/_stcore/host-config", "/static/index.html"])
def test_the_real_server_refuses_strangers(served: Served, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(served.address + path, timeout=60)
    assert refused.value.code == 403
    request = urllib.request.Request(served.address + path, headers={"Cookie": served.new_cookie()})
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200


def test_the_real_server_opens_no_stream_to_strangers(served: Served) -> None:
    url = served.address.replace("http", "ws", 1) + "/_stcore/stream"
    with pytest.raises(InvalidStatus) as refused:
        connect(url, subprotocols=["streamlit"], proxy=None)
    assert refused.value.response.status_code == 403
    with connect(
        url, subprotocols=["streamlit"], proxy=None, additional_headers={"Cookie": served.new_cookie()}
    ) as opened:
        assert opened.subprotocol == "streamlit"


def test_the_token_is_in_no_list_of_processes(served: Served) -> None:
    listed = b"".join(path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists())
    assert served.token.encode() not in listed


def test_a_taken_port_is_said_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "slimfed.dashboard.serve", "--port", str(port)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2
    assert f"--port {port}" in ended.stderr
    assert "another program listens on it" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_cookies_of_two_dashboards_have_two_names() -> None:
    assert cookie_name(8501) != cookie_name(8502)
