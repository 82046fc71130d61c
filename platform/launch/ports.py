"""Ports that the user names: whether they can be listened on."""

import errno
import socket

from slimfed.clients.errors import InputError


def refuse_port_in_use(port: int, address: str) -> None:
    """Raises ``InputError`` if a server could not listen on ``port`` of ``address`` at this moment."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        try:
            probe.bind((address, port))
        except OSError as error:
            cause = (
                f"another program listens on it at {address}"
                if error.errno == errno.EADDRINUSE
                else f"cannot be listened on at {address} ({error.strerror or error})"
            )
            raise InputError(f"--port {port}: {cause}; name another port or address") from None
