"""The sockets of this process at an address, which neither transport hands out. Linux tells of them.

Each is looked at through a descriptor of our own, so that the transport may close its own at any time.
"""

from __future__ import annotations

import array
import fcntl
import ipaddress
import os
import socket
import stat
import sys
import termios
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

POSSIBLE = sys.platform == "linux"

_DESCRIPTORS = Path("/proc/self/fd")
# Length, type and flags, no stream; then the last stream that is still served, any, and no error (RFC 9113, 6.8).
_GOAWAY = (8).to_bytes(3, "big") + b"\x07\x00" + bytes(4) + (2**31 - 1).to_bytes(4, "big") + bytes(4)

_DISCARDED = bytearray(64 * 1_024)
_DISCARDED_MOST = 8 * 1_024 * 1_024
"""More than Linux keeps for a connection by default."""


def descriptors() -> int:
    """How many files and sockets this process has open; 0 where nobody tells."""
    return len(os.listdir(_DESCRIPTORS)) if POSSIBLE else 0  # noqa: PTH208 - several times as fast as Path.iterdir


def sockets(address: str, *, listening: bool = False) -> Iterator[tuple[int, socket.socket]]:
    """The sockets at an address: the transport's descriptor, and the socket under one of our own.

    address: `HOST:PORT` with the real port, or `unix:PATH`. listening: those that accept, in place of connections.
    """
    for entry in _DESCRIPTORS.iterdir():
        with suppress(OSError):  # it was closed meanwhile
            descriptor = int(entry.name)
            if (found := _socket(descriptor)) is None:
                continue
            with closing(found):
                accepts = bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
                if accepts == listening and _is_at(found, address):
                    yield descriptor, found


def is_served(path: str) -> bool:
    """Whether somebody accepts connections at a Unix socket, and not only left it behind."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as asking:
        asking.setblocking(False)
        try:
            asking.connect(path)
        except BlockingIOError:
            return True  # more than it can take up wait already
        except OSError:
            return False
    return True


@contextmanager
def socket_at(descriptor: int, inode: int) -> Iterator[socket.socket | None]:
    """The socket of that name which was found at that descriptor; None where it is there no more."""
    found = None
    with suppress(OSError):
        found = _socket(descriptor)
    if found is None:
        yield None
        return
    with closing(found):
        yield found if os.fstat(found.fileno()).st_ino == inode else None


def discard(connection: socket.socket) -> None:
    """Take what has come in and was not read yet, so that nobody else reads it. For a connection that was shut down."""
    left = _DISCARDED_MOST
    while left > 0 and (taken := connection.recv_into(_DISCARDED, 0, socket.MSG_DONTWAIT)):
        left -= taken


def say_goodbye(connection: socket.socket) -> bool:
    """Ask the client of a plaintext connection to finish what it has begun and to go; whether it was told, or is gone.

    A frame that the transport had begun to write when a socket was full would be torn apart by it. Sockets with
    anything unsent are therefore left out. Should it happen all the same, a connection breaks that was about to be
    closed.
    """
    unsent = array.array("i", [0])
    try:
        fcntl.ioctl(connection, termios.TIOCOUTQ, unsent)
        return not unsent[0] and connection.send(_GOAWAY, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) == len(_GOAWAY)
    except OSError:
        return True


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
    host, _, port = address.rpartition(":")
    return found.type == socket.SOCK_STREAM and port == str(own[1]) and _may_be(own[0], host.strip("[]"))


def _may_be(own: str, host: str) -> bool:
    """Whether a connection to `host` has this address here.

    One of ours to the database may have the same port, on another address.
    """
    try:
        wanted = ipaddress.ip_address(host)
    except ValueError:
        return True  # a name
    actual = ipaddress.ip_address(own.partition("%")[0])
    # grpcio's sockets speak IPv6 throughout, and have IPv4's addresses mapped into it.
    return wanted.is_unspecified or wanted in (actual, getattr(actual, "ipv4_mapped", None))
