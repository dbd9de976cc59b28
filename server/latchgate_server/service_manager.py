"""Tells systemd that the service is up, or on its way down (sd_notify, for units of Type=notify)."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

READY = "READY=1"
STOPPING = "STOPPING=1"

SOCKET = "NOTIFY_SOCKET"
"""The variable that names the socket on which the manager listens."""


def tell_service_manager(state: str) -> None:
    """Tell it READY or STOPPING, where one waits to hear it: where SOCKET is set."""
    address = os.environ.get(SOCKET, "")
    if not address.startswith(("/", "@")):
        return
    # It is told for its convenience alone: a service that cannot tell serves all the same.
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link:
        link.connect(address.replace("@", "\0", 1))
        link.sendall(state.encode("ascii"))
