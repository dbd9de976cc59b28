"""HTTP/2 by hand: a connection over which anything can be sent, whatever RFC 9113 says of it."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from types import TracebackType

from hpack import Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS = 0x4

SETTINGS_INITIAL_WINDOW_SIZE = 0x4
LARGEST_WINDOW = 2**31 - 1

VERIFY = "/latchgate.v1.VerifyService/Verify"
BATCH_VERIFY = "/latchgate.v1.VerifyService/BatchVerify"

TLS = "tls:"
"""In front of an address: over TLS, whoever the server is."""

_TRIES = 20
_HANDSHAKE_SECONDS = 5.0
_SEND_SECONDS = 0.5
"""For how long a send may stand still: then the server has stopped reading, which is an answer as well."""


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """A frame (section 4.1)."""
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def setting(identifier: int, value: int) -> bytes:
    """A SETTINGS frame of one setting."""
    return frame(SETTINGS, payload=struct.pack("!HI", identifier, value))


def window_update(increment: int, stream: int = 0) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, stream=stream, payload=struct.pack("!I", increment))


def reset(stream: int) -> bytes:
    """A RST_STREAM frame, CANCEL."""
    return frame(RST_STREAM, stream=stream, payload=struct.pack("!I", 0x8))


def message(body: bytes) -> bytes:
    """A gRPC message, uncompressed."""
    return b"\0" + struct.pack("!I", len(body)) + body


def call_headers(path: str, *more: tuple[str, str]) -> bytes:
    """The header block of a gRPC call. It leaves HPACK's table alone, so that it can be sent any number of times."""
    headers: Sequence[tuple[str, str]] = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *more,
    ]
    return bytes(Encoder().encode([(name, value, True) for name, value in headers], huffman=False))


@cache
def trusting_anybody() -> ssl.SSLContext:
    """What a client needs that attacks."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


class Wire:
    """A TCP connection to the server, with the preface and empty settings sent unless told otherwise.

    It ends itself after `seconds`, whatever is going on: no attack here goes on for ever.
    """

    def __init__(self, address: str, *, preface: bool = True, seconds: float = 20.0, receive_buffer: int = 0) -> None:
        host, _, port = address.removeprefix(TLS).rpartition(":")
        self._end = time.monotonic() + seconds
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(_SEND_SECONDS)
        try:
            self.socket.connect((host, int(port)))
            if address.startswith(TLS):
                self.socket.settimeout(_HANDSHAKE_SECONDS)
                self.socket = trusting_anybody().wrap_socket(self.socket, server_hostname="localhost")
                self.socket.settimeout(_SEND_SECONDS)
            if preface:
                self.send(PREFACE + frame(SETTINGS))
        except OSError:
            self.socket.close()
            raise
        self.sent = 0

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def beneath(self) -> socket.socket:
        """The connection as it is without TLS, to send what TLS would not."""
        return socket.socket(fileno=os.dup(self.socket.fileno()))

    def send(self, data: bytes) -> None:
        """Send all of it. Raises OSError where the server has closed, or stopped reading."""
        if time.monotonic() > self._end:
            raise TimeoutError
        self.socket.sendall(data)

    def drain(self) -> bytes:
        """What has arrived, without waiting. Empty also where the server has closed."""
        received = b""
        self.socket.setblocking(False)
        try:
            while piece := self.socket.recv(1 << 20):
                received += piece
        except OSError:
            pass
        finally:
            self.socket.settimeout(_SEND_SECONDS)
        return received

    def is_closed(self, seconds: float) -> bool:
        """Whether the server closes the connection within so many seconds; what it sends meanwhile is thrown away."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                if not self.socket.recv(1 << 16):
                    return True
            except TimeoutError:
                return False
            except OSError:
                return True
        return False

    def close(self) -> None:
        """Close it."""
        with suppress(OSError):
            self.socket.close()


@contextmanager
def many(address: str, count: int, *, preface: bool = True) -> Iterator[list[Wire]]:
    """As many connections at once as the server takes, `count` at most."""
    wires: list[Wire] = []
    patience = _TRIES
    try:
        while len(wires) < count and patience:
            try:
                wires.append(Wire(address, preface=preface))
            except OSError:  # such as a queue of connections that is full for the moment
                patience -= 1
        yield wires
    finally:
        for wire in wires:
            wire.close()
