"""``dashboard``: serving the web pages."""

import os
import sys
from typing import Annotated

import typer


def dashboard(
    port: Annotated[int, typer.Option(min=1, max=65535, help="port to listen on")] = 8501,
    address: Annotated[
        str, typer.Option(help="address to listen on; any other than 127.0.0.1 needs a login (docs/security.md)")
    ] = "127.0.0.1",
) -> None:
    """Serve the dashboard until Ctrl-C, by default to this machine only, and print the address to open."""
    from importlib.util import find_spec

    from slimfed.clients.errors import InputError
    from slimfed.platform.home import home
    from slimfed.platform.launch.child_environment import child_environment
    from slimfed.platform.launch.ports import refuse_port_in_use

    if find_spec("streamlit") is None:
        raise InputError("the dashboard's packages are missing: pip install 'slimfed[dashboard]'")
    refuse_port_in_use(port, address)  # at once: the pages take seconds to import
    # Started by name, as this floor does not import the dashboard; execve, so that signals reach the server.
    command = [sys.executable, "-m", "slimfed.dashboard.serve", "--port", str(port), "--address", address]
    os.execve(sys.executable, command, {**child_environment(), "SLIMFED_HOME": str(home())})
