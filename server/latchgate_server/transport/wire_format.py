"""The few rules of Protocol Buffers' encoding that responses which are put together from serialised parts need."""

from __future__ import annotations

import math


def varint(number: int) -> bytes:
    """The number, 0 or more, in base 128, least significant part first ("Encoding": "Base 128 Varints")."""
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def delimited(tag: bytes, content: bytes) -> bytes:
    """A field of wire type LEN ("Encoding": "Length-Delimited Records"). tag: of the field, serialised."""
    return tag + varint(len(content)) + content


def duration(seconds: float) -> bytes:
    """The content of a google.protobuf.Duration, rounded up to milliseconds: whoever waits for it waits long enough."""
    whole, milliseconds = divmod(math.ceil(seconds * 1_000), 1_000)
    content = b"\x08" + varint(whole) if whole else b""
    return content + b"\x10" + varint(milliseconds * 1_000_000) if milliseconds else content
