"""The dashboard behind nginx with TLS: pages come through, and the websocket that they live on."""

import ssl
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import gate
import keys
import pytest
from loopback import free_port
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from slimfed.dashboard.access.users import write_user
from slimfed.dashboard.serve import serving

pytestmark = pytest.mark.timeout(300)


@dataclass
class Front:
    """What a browser is given: the public address, and the authority to trust."""

    address: str
    context: ssl.SSLContext

    def stream(self, origin: str) -> ClientConnection:
        """The page's websocket, as Streamlit's script opens it from a page of ``origin``."""
        address = self.address.replace("https", "wss") + "/_stcore/stream"
        return connect(address, ssl=self.context, origin=origin, subprotocols=["streamlit"], open_timeout=60)


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    gate.binary()
    folder, port = tmp_path_factory.mktemp("front"), free_port()
    keys.write_server_files(folder / "keys", ["localhost"])
    address = f"https://localhost:{port}"
    public = "https://fleet.example.org"
    write_user(folder / "users", "ada", "viewer", "correct horse battery")
    environment = {"SLIMFED_HOME": str(folder / "runs"), "STREAMLIT_SERVER_CORS_ALLOWED_ORIGINS": public}
    environment |= {"SLIMFED_DASHBOARD_USERS": str(folder / "users")}
    with serving(environment) as served:
        places = {"listen 8444": f"listen 127.0.0.1:{port}", " /keys/": f" {folder / 'keys'}/"}
        places |= {"http://127.0.0.1:8501": served.address}
        with gate.nginx("nginx-dashboard.conf", folder / "nginx", places):
            yield Front(address, ssl.create_default_context(cafile=str(folder / "keys" / "ca.crt")))


def test_a_page_and_its_websocket_come_through(front: Front) -> None:
    with urllib.request.urlopen(f"{front.address}/", timeout=60, context=front.context) as page:
        assert b"<title>" in page.read()
    with front.stream("https://fleet.example.org") as stream:
        assert stream.subprotocol == "streamlit"
        stream.ping().wait(60)


def test_a_page_of_somebody_else_gets_no_websocket(front: Front) -> None:
    with pytest.raises(InvalidStatus) as refused:
        front.stream("https://elsewhere.example.org")
    assert refused.value.response.status_code == 403
