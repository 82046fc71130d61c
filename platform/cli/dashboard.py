"""``dashboard``: the web pages, served on this machine only."""

import os
import sys
from typing import Annotated

import typer


def dashboard(
    port: Annotated[int, typer.Option(min=1, max=65535, help="port on 127.0.0.1")] = 8501,
) -> None:
    """Serve the dashboard on 127.0.0.1 until Ctrl-C."""
    from importlib.util import find_spec

    from slimfed.clients.errors import InputError
    from slimfed.platform.home import home

    if find_spec("streamlit") is None:
        raise InputError("the dashboard's packages are missing: pip install 'slimfed[dashboard]'")
    # By name: this floor does not import the one above it. In place of this process: nothing to pass signals on to.
    command = [sys.executable, "-m", "slimfed.dashboard.serve", "--port", str(port)]
    os.execve(sys.executable, command, {**os.environ, "SLIMFED_HOME": str(home())})
