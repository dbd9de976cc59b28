"""Attacks on memory: things that are begun and never ended, on as many connections and calls as there may be."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress

from h2.connection import H2Connection
from h2.exceptions import ProtocolError

from tests.attack.wire import END_HEADERS, HEADERS, VERIFY, Wire, call_headers, frame, many

_MEBIBYTE = 1024 * 1024
_HEADERS = call_headers(VERIFY)
# One large header put into HPACK's table, and a call that names it four times: 16 KiB of headers in 80 bytes.
_FILLING = (
    bytes.fromhex("40") + b"\x01x" + b"\x7f" + bytes((3_500 - 127 & 0x7F | 0x80, 3_500 - 127 >> 7)) + b"x" * 3_500
)


def messages_never_ended(address: str, amount: int) -> int:
    """Messages of the largest size that is taken, on as many streams as there may be, all but their last byte.

    This one keeps to the rules, and sends only what the server's flow control asks for. Counts kibibytes.
    """
    sent = 0
    with ExitStack() as stack:
        for _ in range(2 * amount):
            with suppress(OSError, ProtocolError):
                wire = stack.enter_context(Wire(address, preface=False))
                sent += _send_almost_all(wire, streams=8, size=2 * 1024 * 1024)
        time.sleep(0.5)
    return sent // 1_024


def _send_almost_all(wire: Wire, streams: int, size: int, most: int | None = None) -> int:
    http = H2Connection()
    http.initiate_connection()
    headers = [(":method", "POST"), (":scheme", "http"), (":path", VERIFY), (":authority", "localhost")]
    left = dict.fromkeys(range(1, 2 * streams, 2), min(size - 1, most or size))
    for stream in left:
        http.send_headers(stream, [*headers, ("content-type", "application/grpc"), ("te", "trailers")])
        http.send_data(stream, b"\0" + struct.pack("!I", size))
    sent, patience = 0, 10
    while any(left.values()) and patience:
        before = sent
        for stream in left:
            while room := min(left[stream], http.local_flow_control_window(stream), http.max_outbound_frame_size):
                http.send_data(stream, bytes(room))
                left[stream] -= room
                sent += room
        wire.send(http.data_to_send())
        patience = 10 if sent > before else patience - 1
        time.sleep(0.001 if sent > before else 0.02)
        http.receive_data(wire.drain())
    return sent


def message_without_measure(address: str, amount: int) -> int:
    """One message that says that it will be a gigabyte. Counts kibibytes."""
    with suppress(OSError, ProtocolError), Wire(address, preface=False) as wire:
        return _send_almost_all(wire, streams=1, size=1_024 * _MEBIBYTE, most=250 * amount * _MEBIBYTE) // 1_024
    return 1


def headers_half_sent(address: str, amount: int) -> int:
    """Connections that have sent as much of a call's headers as is taken, and not the end of them."""
    half = frame(HEADERS, 0, 1, _HEADERS + b"\x00\x01y\x7f\x81\x77" + b"z" * 15_000)
    return _held(address, 500 * amount, half)


def calls_never_ended(address: str, amount: int) -> int:
    """Connections with as many calls as there may be, each with as much of headers, which none of them goes beyond."""
    calls = frame(HEADERS, END_HEADERS, 1, _HEADERS + _FILLING)
    calls += b"".join(frame(HEADERS, END_HEADERS, s, _HEADERS + b"\xbe" * 4) for s in range(3, 2 * 128, 2))
    return _held(address, 100 * amount, calls)


def _held(address: str, connections: int, begun: bytes) -> int:
    with many(address, connections) as wires:
        for wire in wires:
            with suppress(OSError):
                wire.send(begun)
        time.sleep(1.5)
        return len(wires)


HOARDS: Sequence[Callable[[str, int], int]] = (
    messages_never_ended,
    message_without_measure,
    headers_half_sent,
    calls_never_ended,
)
