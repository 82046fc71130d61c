"""A SuperLink with TLS and node authentication, as `deploy/loopback.sh` starts it: who is unknown gets nothing."""

import json
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import keys
import pytest
from loopback import NAME, Loopback

from slimfed.platform.launch.flower import environment, program

PATIENCE = 180.0

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    """Without nodes."""
    with Loopback(tmp_path_factory.mktemp("federation"), nodes=0) as federation:
        for number in (0, 1):
            keys.write_node_files(federation.folder / "keys", [f"node-{number}"])
            (federation.folder / "data" / f"device-{number}").mkdir()
        yield federation


def online(federation: Loopback) -> int:
    given = environment(federation.folder / "flower", {})
    command = [program("flwr", given), "supernode", "list", NAME, "--format", "json"]
    done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=120, check=True)
    nodes = json.loads(done.stdout[done.stdout.index("{") :])["nodes"]
    return sum(node["status"] == "online" for node in nodes)


def test_only_a_registered_node_gets_in(federation: Loopback) -> None:
    """Both have keys of the same kind; one was told to the SuperLink."""
    federation._flwr("supernode", "register", str(federation.folder / "keys" / "node-0.pub"), NAME)
    federation.start_node(1)
    assert federation.processes["node-1"].wait(PATIENCE) != 0, "a stranger does not stay"
    assert online(federation) == 0
    federation.start_node(0)
    deadline = time.monotonic() + PATIENCE
    while online(federation) != 1:
        assert time.monotonic() < deadline
        time.sleep(1.0)


def test_without_tls_and_with_another_authority_nobody_gets_through(federation: Loopback, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"."):
        urllib.request.urlopen(f"http://127.0.0.1:{federation.port}/health", timeout=10)
    keys.write_server_files(tmp_path, ["127.0.0.1"])
    stranger = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(f"https://127.0.0.1:{federation.port}/health", timeout=10, context=stranger)


def test_an_unsigned_request_of_a_node_is_refused(federation: Loopback) -> None:
    context = ssl.create_default_context(cafile=str(federation.folder / "keys" / "ca.crt"))
    for path in ("activate-node", "pull-messages", "push-messages", "get-fab", "pull-object"):
        request = urllib.request.Request(
            f"https://127.0.0.1:{federation.port}/v1/fleet/{path}", data=b"", method="POST"
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10, context=context)
        assert 400 <= refused.value.code < 500, path
