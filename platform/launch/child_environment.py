"""What every process that slimfed starts has in its environment, whatever the caller's is like."""

import os
from collections.abc import Mapping

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_NO_PROXY = ("no_proxy", "NO_PROXY")


def child_environment(inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """``inherited``, with what keeps a child from the folder and the proxy of the user.

    A file of the user's such as ``random.py`` must not take the place of Python's own (``PYTHONSAFEPATH``), and a call
    to this machine must not go to a proxy (``no_proxy``).
    """
    return {**inherited, "PYTHONSAFEPATH": "1", **_without_proxy(inherited)}


def _without_proxy(inherited: Mapping[str, str]) -> dict[str, str]:
    """``no_proxy`` in both spellings, each with the names of this machine added to what it has.

    Programs read one or the other, so an exception that the user made in one of them counts in both.
    """
    listed = [host.strip() for name in _NO_PROXY for host in inherited.get(name, "").split(",") if host.strip()]
    hosts = ",".join(dict.fromkeys([*listed, *_LOOPBACK]))
    return dict.fromkeys(_NO_PROXY, hosts)
