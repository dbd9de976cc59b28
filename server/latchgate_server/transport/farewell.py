"""How a server takes leave: it accepts no more connections, and asks those who hold one to go elsewhere.

HTTP/2 has a frame for that (GOAWAY with the highest stream number, RFC 9113, section 6.8): a client finishes the calls
that it has begun, opens none any more, and closes. Neither transport sends it while it still serves, so that calls
under way when it stops are lost: the native one fails them, and grpcio cancels what it has not taken up. So it is
written here, onto the sockets of the process.

A frame that the transport had begun to write when a socket was full would be torn apart by it. Sockets with anything
unsent are therefore left out. Should it happen all the same, a connection breaks that was about to be closed.

On Linux; elsewhere, and on connections with TLS, there is no such word, and only health says that the server leaves.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import stat
import sys
import termios
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import structlog

from latchgate_server import observability
from latchgate_server.core.ports import Clock

_DESCRIPTORS = Path("/proc/self/fd")
_POSSIBLE = sys.platform == "linux"
# Length, type and flags, no stream; then the last stream that is still served, any, and no error.
_GOAWAY = (8).to_bytes(3, "big") + b"\x07\x00" + bytes(4) + (2**31 - 1).to_bytes(4, "big") + bytes(4)
_LOOK_SECONDS = 0.01
_LONGEST_SECONDS = 1.0
"""More than a round trip to any client. Connections that have calls under way live longer, and are not waited for."""

_log = structlog.get_logger()


async def take_leave(address: str, clock: Clock, *, encrypted: bool) -> None:
    """Accept no more connections at `address`, and return when all are closed, or after a second.

    address: `HOST:PORT` with the real port, or `unix:PATH`. encrypted: the connections carry TLS.
    """
    if not _POSSIBLE:
        return
    try:
        _close_listeners(address)
        await _say_goodbye(address, clock, encrypted=encrypted)
    except OSError as error:
        # Such as no descriptor left. The server ends as well without.
        _log.warning(observability.NO_FAREWELL, address=address, error=error.strerror)


async def _say_goodbye(address: str, clock: Clock, *, encrypted: bool) -> None:
    told: set[int] = set()
    end = clock.monotonic() + _LONGEST_SECONDS
    while clock.monotonic() < end:
        connections = 0
        for descriptor, connection in _sockets(address):
            connections += 1
            inode = os.fstat(descriptor).st_ino
            if not encrypted and inode not in told and _tell(connection):
                told.add(inode)
        if not connections:
            return
        await clock.sleep(_LOOK_SECONDS)


def _tell(connection: socket.socket) -> bool:
    unsent = array.array("i", [0])
    try:
        fcntl.ioctl(connection, termios.TIOCOUTQ, unsent)
        return not unsent[0] and connection.send(_GOAWAY, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) == len(_GOAWAY)
    except OSError:
        return True  # gone already


def _close_listeners(address: str) -> None:
    """Put a socket that nobody can find in the place of each, since the transports keep theirs until they stop.

    A listener that was merely shut down would fail in the hands of its transport, again and again.
    """
    for descriptor, _ in _sockets(address, listening=True):
        with socket.socket(socket.AF_UNIX) as placeholder:
            placeholder.setblocking(False)
            placeholder.bind("")  # in Linux's abstract namespace, under a name of its choice
            placeholder.listen(0)
            os.dup2(placeholder.fileno(), descriptor, inheritable=False)


def _sockets(address: str, *, listening: bool = False) -> Iterator[tuple[int, socket.socket]]:
    """The sockets of this process at an address: the transport's descriptor, and the socket under one of our own."""
    for entry in _DESCRIPTORS.iterdir():
        with suppress(OSError):  # it was closed meanwhile
            descriptor = int(entry.name)
            if (found := _socket(descriptor)) is None:
                continue
            with closing(found):
                accepts = bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
                if accepts == listening and _is_at(found, address):
                    yield descriptor, found


def _socket(descriptor: int) -> socket.socket | None:
    own = os.dup(descriptor)
    if stat.S_ISSOCK(os.fstat(own).st_mode):
        return socket.socket(fileno=own)
    os.close(own)
    return None


def _is_at(found: socket.socket, address: str) -> bool:
    own = found.getsockname()
    if found.family == socket.AF_UNIX:
        return address == f"unix:{own}"
    return found.type == socket.SOCK_STREAM and address.rpartition(":")[2] == str(own[1])
