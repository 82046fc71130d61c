"""A word at the end of a run, to a real address and a real command; and what becomes of one that cannot be told."""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from slimfed.clients.errors import InputError
from slimfed.platform.job.job import job_to_dict, load_job
from slimfed.platform.launch.notification import check_notification, notify
from slimfed.platform.store.reader import Reader
from slimfed.platform.store.writer import FinalStatus, Store


@pytest.fixture
def store(tmp_path: Path):
    with Store.open("sqlite", tmp_path) as opened:
        yield opened


@pytest.fixture
def heard():
    """An address, and what was posted to it; paths that begin with /no are refused."""
    posted: list[dict] = []

    class Ear(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(403 if self.path.startswith("/no") else 204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Ear)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", posted
    server.shutdown()
    thread.join(timeout=10)


def ended(store: Store, status: FinalStatus, cause: str | None = None) -> str:
    store.create_run("one", job_to_dict(load_job(None, ["name=demo"])), Path("one"))
    store.mark_running("one")
    store.finish("one", status, cause)
    return "one"


def test_an_address_gets_text_and_figures(store: Store, heard) -> None:
    address, posted = heard
    notify(store, ended(store, "failed", "the quorum was missed"), {"SLIMFED_NOTIFY_WEBHOOK": f"{address}/hook"})
    (told,) = posted
    assert told["text"] == "slimfed: demo has failed after 0 of 12 rounds: the quorum was missed"
    assert (told["run_id"], told["status"], told["name"]) == ("one", "failed", "demo")


def test_a_command_reads_the_same(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "told file.json"
    code = f"import sys; open({str(file)!r}, 'w').write(sys.stdin.read())"
    notify(store, ended(store, "done"), {"SLIMFED_NOTIFY_COMMAND": f'{sys.executable} -c "{code}"'})
    assert json.loads(file.read_text())["text"] == "slimfed: demo is done after 0 of 12 rounds"


def test_failures_alone_if_asked_for(store: Store, heard) -> None:
    address, posted = heard
    both = {"SLIMFED_NOTIFY_WEBHOOK": address, "SLIMFED_NOTIFY_ON": "failure"}
    notify(store, ended(store, "done"), both)
    assert posted == []


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("SLIMFED_NOTIFY_WEBHOOK", "/no/secret-part", "was answered with 403"),
        ("SLIMFED_NOTIFY_COMMAND", "/nowhere/program", "cannot be run"),
        ("SLIMFED_NOTIFY_COMMAND", f"{sys.executable} -c 'raise SystemExit(3)'", "ended with code 3"),
    ],
    ids=["refused", "missing", "failing"],
)
def test_what_cannot_be_told_is_an_event(name: str, value: str, problem: str, store: Store, heard) -> None:
    address, _ = heard
    value = f"{address}{value}" if name.endswith("WEBHOOK") else value
    notify(store, ended(store, "done"), {name: value})
    (event,) = Reader(store.engine).events("one")
    assert event.kind == "not-notified"
    assert problem in event.cause
    assert "secret-part" not in event.cause
    assert Reader(store.engine).find_run("one").status == "done"


def test_wrong_settings_are_told_before_a_run_starts() -> None:
    for name, value in (
        ("SLIMFED_NOTIFY_ON", "always"),
        ("SLIMFED_NOTIFY_WEBHOOK", "hooks.example"),
        ("SLIMFED_NOTIFY_COMMAND", "say 'it"),
    ):
        with pytest.raises(InputError, match=name):
            check_notification({name: value})
    check_notification({})
