"""Ports for servers that are started here and asked for elsewhere."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack, suppress

ATTEMPTS = 100


def free_ports(count: int) -> list[int]:
    """Different ports of 127.0.0.1 that nobody listens on.

    They are below those that systems give to outgoing connections, so that each stays free until its server listens,
    and also while that is away.
    """
    ports: list[int] = []
    with ExitStack() as stack:
        for _ in range(ATTEMPTS):
            if len(ports) == count:
                return ports
            port = random.randrange(20_000, 30_000)
            holder = stack.enter_context(socket.socket())
            with suppress(OSError):
                holder.bind(("127.0.0.1", port))
                ports.append(port)
    raise OSError("no free port")


def free_port() -> int:
    """One of them."""
    (port,) = free_ports(1)
    return port
