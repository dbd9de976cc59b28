"""How protobuf messages are written, for the hot path, which puts responses together from serialised parts.

A message's fields may come in any order and in several pieces, of which the last one wins, or which are merged where
they are messages themselves (Protocol Buffers, "Encoding": "Field Order" and "Last One Wins").
"""

from __future__ import annotations

from typing import Final

_SHORT: Final = [bytes((number,)) for number in range(0x80)]


def varint(number: int) -> bytes:
    """A number, not negative, in base 128, least significant part first ("Encoding": "Base 128 Varints")."""
    if number < 0x80:
        return _SHORT[number]
    digits = shift = 0
    while number > 0x7F:
        digits |= (number & 0x7F | 0x80) << shift
        number >>= 7
        shift += 8
    return (digits | number << shift).to_bytes(shift // 8 + 1, "little")
