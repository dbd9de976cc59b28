"""What a stranger may do to a port that speaks TLS: before there is any HTTP/2, and inside."""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress

from tests.attack.attacks import ATTACKS, MALFORMED, Attack
from tests.attack.wire import TLS, Wire, many, trusting_anybody

HANDSHAKE, CHANGE_CIPHER_SPEC, ALERT, APPLICATION_DATA, HEARTBEAT = 22, 20, 21, 23, 24


def record(kind: int, payload: bytes, length: int | None = None) -> bytes:
    """A TLS record (RFC 8446, section 5.1); one that lies where `length` is given."""
    size = len(payload) if length is None else length
    return bytes((kind, 3, 3)) + size.to_bytes(2, "big") + payload


def client_hello() -> bytes:
    """What a client says first."""
    outgoing = ssl.MemoryBIO()
    client = trusting_anybody().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def handshakes_half_done(address: str, amount: int) -> int:
    """Connections that say nothing, half of a greeting, or a whole one and nothing after the answer."""
    hello = client_hello()
    parts = (b"", hello[: len(hello) // 2], hello)
    with many(address, 300 * amount, preface=False) as wires:
        for number, wire in enumerate(wires):
            with suppress(OSError):
                wire.send(parts[number % len(parts)])
        time.sleep(0.5)
        return len(wires)


def handshake_flood(address: str, amount: int) -> int:
    """Whole handshakes, one after the other, each of which costs the server a signature."""
    made = 0
    for _ in range(100 * amount):
        with suppress(OSError), Wire(TLS + address, preface=False):
            made += 1
    return made


def greeting_flood(address: str, amount: int) -> int:
    """Greetings alone, which cost the server as much and the client nothing."""
    hello, made = client_hello(), 0
    for _ in range(300 * amount):
        with suppress(OSError), Wire(address, preface=False) as wire:
            wire.send(hello)
            made += 1
    return made


def plaintext_on_tls(address: str, amount: int) -> int:
    """HTTP/2 without TLS, sound and broken."""
    conversations = [*MALFORMED.values()] * amount
    for conversation in conversations:
        with suppress(OSError), Wire(address, preface=False) as wire:
            wire.send(conversation)
            wire.drain()
    return len(conversations)


def broken_records(address: str, amount: int) -> int:
    """Records that are none: before a handshake, in the middle of it, and after it, a second greeting among them."""
    hello, dice, sent = client_hello(), random.Random(amount), 0
    broken = [
        hello,
        record(CHANGE_CIPHER_SPEC, b"\x01") * 100,
        record(ALERT, b"\x01\x64") * 100,  # no renegotiation
        record(HANDSHAKE, b"\x00" * 4) * 100,  # HelloRequest
        record(APPLICATION_DATA, b"", 0xFFFF) + bytes(70_000),
        record(APPLICATION_DATA, b"") * 1_000,
        record(HEARTBEAT, b"\x01\xff\xff"),  # CVE-2014-0160
        *(dice.randbytes(dice.randint(1, 2_000)) for _ in range(20 * amount)),
    ]
    for garbage in broken:
        for before in (b"", hello):
            with suppress(OSError), Wire(address, preface=False) as wire:
                wire.send(before + garbage)
                wire.drain()
                sent += 1
        with suppress(OSError), ExitStack() as stack:
            wire = stack.enter_context(Wire(TLS + address))
            raw = stack.enter_context(wire.beneath())
            raw.sendall(garbage)
            sent += 1
    return sent


def _inside(name: str) -> Attack:
    def attack(address: str, amount: int) -> int:
        return ATTACKS[name](TLS + address, amount)

    return attack


TLS_ATTACKS: Mapping[str, Attack] = {
    **{
        attack.__name__: attack
        for attack in (
            handshakes_half_done,
            handshake_flood,
            greeting_flood,
            plaintext_on_tls,
            broken_records,
        )
    },
    **{
        f"{name}_inside": _inside(name)
        for name in (
            "malformed_frames",
            "header_flood",
            "hpack_bomb",
            "continuation_flood",
            "rapid_reset",
            "ping_flood",
            "messages_never_ended",
            "headers_half_sent",
        )
    },
}
"""The first are TLS's own; the others are what is tried without TLS as well."""
