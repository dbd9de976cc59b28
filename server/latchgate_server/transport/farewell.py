"""How a server takes leave: it accepts no more connections, and asks those who hold one to go elsewhere.

HTTP/2 has a frame for that (GOAWAY with the highest stream number, RFC 9113, section 6.8): a client finishes the calls
that it has begun, opens none any more, and closes. Neither transport sends it while it still serves, so that calls
under way when it stops are lost: the native one fails them, and grpcio cancels what it has not taken up. So it is
written here, onto the sockets of the process.

Nobody but the transport can write onto a connection with TLS. There, grpcio sends that frame of its own accord when a
connection has reached an age that was given to it when it began, and goes on serving; so a server whose connections
have one waits for it. Without an age, and elsewhere than on Linux, only health says that the server leaves.
"""

from __future__ import annotations

import os
import socket

import structlog

from latchgate_server import log_events
from latchgate_server.core.ports import Clock
from latchgate_server.transport.sockets import POSSIBLE, say_goodbye, sockets

_LOOK_SECONDS = 0.01
_LONGEST_SECONDS = 1.0
"""More than a round trip to any client. Connections that have calls under way live longer, and are not waited for."""
_JITTER = 1.1
"""The age of a connection that grpcio gives it, at most, of the one that it was told."""

_log = structlog.get_logger()


async def take_leave(address: str, clock: Clock, *, encrypted: bool, age: float) -> None:
    """Accept no more connections at `address`, and return when all are closed, or a second after all should be.

    address: `HOST:PORT` with the real port, or `unix:PATH`. encrypted: the connections carry TLS.
    age: seconds after which the transport asks clients to leave a connection; 0: never.
    """
    if not POSSIBLE:
        return
    try:
        _close_listeners(address)
        end = clock.monotonic() + _JITTER * age + _LONGEST_SECONDS
        await _send_everybody_away(address, clock, end, encrypted=encrypted)
    except OSError as error:
        # Such as no descriptor left. The server ends as well without.
        _log.warning(log_events.NO_FAREWELL, address=address, error=error.strerror)


async def _send_everybody_away(address: str, clock: Clock, end: float, *, encrypted: bool) -> None:
    told: set[int] = set()
    while clock.monotonic() < end:
        connections = 0
        for descriptor, connection in sockets(address):
            connections += 1
            inode = os.fstat(descriptor).st_ino
            if not encrypted and inode not in told and say_goodbye(connection):
                told.add(inode)
        if not connections:
            return
        await clock.sleep(_LOOK_SECONDS)


def _close_listeners(address: str) -> None:
    """Put a socket that nobody can find in the place of each, since the transports keep theirs until they stop.

    A listener that was merely shut down would fail in the hands of its transport, again and again.
    """
    for descriptor, _ in sockets(address, listening=True):
        with socket.socket(socket.AF_UNIX) as placeholder:
            placeholder.setblocking(False)
            placeholder.bind("")  # in Linux's abstract namespace, under a name of its choice
            placeholder.listen(0)
            os.dup2(placeholder.fileno(), descriptor, inheritable=False)
