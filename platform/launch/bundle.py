"""The Flower app bundle for ``flwr run``, which works from a wheel and from a checkout.

The bundle contains no code. Flower requires a ``pyproject.toml`` that names the apps, and a licence file; both apps are
imported from the installed package.
"""

from importlib.metadata import version
from pathlib import Path

_PYPROJECT = """\
[project]
name = "slimfed"
version = "{version}"
description = "The Flower apps of slimfed; their code is in the installed package"
license = {{ file = "LICENSE" }}
dependencies = ["flwr=={flwr}"]

[tool.flwr.app]
publisher = "slimfed"

[tool.flwr.app.components]
serverapp = "slimfed.platform.serverapp:app"
clientapp = "slimfed.clients.clientapp:app"

[tool.flwr.app.config.slimfed]
run = ""
home = ""
job = ""
nodes = 2
real = false
"""

_LICENSE = "slimfed is licensed under the Apache License, Version 2.0: https://www.apache.org/licenses/LICENSE-2.0\n"


def write_bundle(folder: Path) -> Path:
    """Write the bundle into ``folder`` (made if missing) and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(_PYPROJECT.format(version=version("slimfed"), flwr=version("flwr")))
    (folder / "LICENSE").write_text(_LICENSE)
    return folder
