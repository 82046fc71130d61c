"""A model hub on a port of this computer: as much of its protocol as an upload takes."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_test"


@dataclass
class FakeHub:
    """``models``: files by name of repository; ``private``: whether it is.

    ``refuse``: the status that requests get whose path has this in it.
    """

    models: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    refuse: dict[str, int] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    address: str = ""

    def answer(self, method: str, path: str, body: bytes, token: str) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON and headers."""
        self.asked.append(f"{method} {path}")
        for part, status in self.refuse.items():
            if part in path:
                return status, {"error": "you may not"}, {}
        if method == "PUT":
            self.blobs[path.rsplit("/", 1)[1]] = body
            return 200, {}, {}
        if token != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid credentials"}, {}
        if path == "/api/whoami-v2":
            return 200, {"name": "ann", "type": "user"}, {}
        if path == "/api/repos/create":
            asked = json.loads(body)
            owner = asked.get("organization") or "ann"
            name = f"{owner}/{asked['name']}"
            self.models[name] = {}
            self.private[name] = asked.get("private", False) or asked.get("visibility") == "private"
            return 200, {"url": f"{self.address}/{name}", "name": name}, {}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}, {}
        if path.endswith(".git/info/lfs/objects/batch"):
            wanted = json.loads(body)["objects"]
            actions = [
                {**each, "actions": {"upload": {"href": f"{self.address}/blob/{each['oid']}"}}} for each in wanted
            ]
            return 200, {"transfer": "basic", "objects": actions}, {}
        return self._model(path, body)

    def _model(self, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        name = "/".join(path.removeprefix("/api/models/").split("/")[:2])
        if name not in self.models:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        if "/preupload/" in path:
            files = [
                {
                    "path": each["path"],
                    "uploadMode": "lfs" if each["path"].endswith((".safetensors", ".gguf", ".onnx")) else "regular",
                    "shouldIgnore": False,
                }
                for each in json.loads(body)["files"]
            ]
            return 200, {"files": files}, {}
        if "/commit/" in path:
            for line in body.splitlines():
                self._commit(name, json.loads(line))
            return 200, {"success": True, "commitOid": "1" * 40, "commitUrl": f"{self.address}/{name}/commit/1"}, {}
        return 200, {"id": name, "private": self.private[name], "siblings": [], "sha": "0" * 40}, {}

    def _commit(self, name: str, operation: dict[str, Any]) -> None:
        value = operation["value"]
        if operation["key"] == "header":
            self.messages.append(value["summary"])
        elif operation["key"] == "file":
            self.models[name][value["path"]] = base64.b64decode(value["content"])
        elif operation["key"] == "lfsFile":
            self.models[name][value["path"]] = self.blobs[value["oid"]]


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A hub that runs until the end of the block."""
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = self._chunks()
            path = self.path.split("?")[0]
            status, document, headers = hub.answer(self.command, path, body, self.headers.get("Authorization", ""))
            data = json.dumps(document).encode()
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(data)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def _chunks(self) -> bytes:
            found = b""
            while size := int(self.rfile.readline(), 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return found

        do_GET = do_POST = do_PUT = do_HEAD = _serve  # noqa: N815 - names of the base class

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
