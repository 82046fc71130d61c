"""A visitor of the dashboard without a browser: has a page drawn again and again, as long as something else runs."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

_EVERY_SECONDS = 2.0
_DRAWN_SECONDS = 60.0


@dataclass
class Visit:
    """``seconds``: what each drawing of the page took; ``errors``: drawings that failed."""

    page: str
    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@contextmanager
def visiting(environment: dict[str, str], page: str = "") -> Iterator[Visit]:
    """Context with the dashboard's server, and ``page`` (its path; "": the list of runs) drawn every two seconds.

    The visitor speaks Streamlit's own protocol over a WebSocket, so that the page's script runs on the server as it
    does for a browser. Raises ``RuntimeError`` if the server does not start.
    """
    from slimfed.dashboard.serve import serving  # only here: without a dashboard Streamlit need not be installed

    visit, done = Visit(page or "the list of runs"), threading.Event()
    with serving(environment) as served:
        thread = threading.Thread(target=_poll, args=(served, page, visit, done), daemon=True)
        thread.start()
        try:
            yield visit
        finally:
            done.set()
            thread.join(_DRAWN_SECONDS)


def _poll(served: Any, page: str, visit: Visit, done: threading.Event) -> None:
    from websockets.sync.client import connect

    url = served.address.replace("http", "ws", 1) + "/_stcore/stream"
    while not done.wait(_EVERY_SECONDS):
        try:
            with connect(
                url,
                additional_headers={"Cookie": served.new_cookie()},
                subprotocols=["streamlit"],
                max_size=None,
                proxy=None,
            ) as socket:
                while not done.is_set():
                    began = time.monotonic()
                    _draw(socket, page)
                    visit.seconds.append(time.monotonic() - began)
                    done.wait(_EVERY_SECONDS)
        except Exception as error:  # whatever it is, the run goes on; the result says how many drawings failed
            visit.errors.append(f"{type(error).__name__}: {error}")


def _draw(socket: Any, page: str) -> None:
    """Ask for the page's script, and wait until it has finished. Raises ``RuntimeError`` if it did not succeed."""
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

    ask = BackMsg()
    ask.rerun_script.page_name = page
    socket.send(ask.SerializeToString())
    drew, deadline = False, time.monotonic() + _DRAWN_SECONDS
    while time.monotonic() < deadline:
        answer = ForwardMsg()
        answer.ParseFromString(socket.recv(timeout=_DRAWN_SECONDS))
        kind = answer.WhichOneof("type")
        drew = drew or kind == "delta"
        if kind == "page_not_found" or (kind == "delta" and answer.delta.new_element.HasField("exception")):
            raise RuntimeError(f"the page was not drawn: {answer.delta.new_element.exception.message or 'not found'}")
        if kind == "script_finished":
            if not drew or answer.script_finished != ForwardMsg.FINISHED_SUCCESSFULLY:
                raise RuntimeError("the page's script ended without drawing")
            return
    raise TimeoutError(f"the page was not drawn within {_DRAWN_SECONDS:g} s")
