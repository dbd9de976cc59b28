"""Network addresses as integers: the IP allowlist of a key.

IPv4-mapped IPv6 addresses (RFC 4291, section 2.5.5.2) count as the IPv4 address that they hold, in ranges as well as
in what is looked up.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_pton
from typing import Final

from latchgate_server.core import bounds

_MAPPED: Final = 0xFFFF << 32
_MAPPED_MASK: Final = ((1 << 128) - 1) ^ 0xFFFF_FFFF


class MalformedAddress(ValueError):
    """Neither an address nor a range; the message says what would be right, for people."""


def parse_address(text: str) -> tuple[int, int] | None:
    """The version (4 or 6) and the number of an address, or None for what is no address.

    Strict: no zone, no port, no brackets, no leading zeros, no white space.
    """
    if not text or len(text) > bounds.CLIENT_ADDRESS_LENGTH:
        return None
    return _parse_address(text)


@lru_cache(maxsize=4_096)
def _parse_address(text: str) -> tuple[int, int] | None:
    try:
        if ":" not in text:
            return 4, int.from_bytes(inet_pton(AF_INET, text))
        number = int.from_bytes(inet_pton(AF_INET6, text))
    except (OSError, ValueError):
        return None
    if number & _MAPPED_MASK == _MAPPED:
        return 4, number & 0xFFFF_FFFF
    return 6, number


def canonical_address(text: str) -> str | None:
    """The one way to write an address, or None for what is no address."""
    parsed = parse_address(text)
    if parsed is None:
        return None
    version, number = parsed
    return str(ipaddress.IPv4Address(number) if version == 4 else ipaddress.IPv6Address(number))


def parse_range(text: str) -> tuple[int, int, int]:
    """The version, first and last number of an address or CIDR range.

    Raises MalformedAddress, also for a range whose address has bits outside its prefix: `10.0.0.1/8` is more likely
    a slip than a wish.
    """
    host, slash, prefix = text.partition("/")
    try:
        if slash and str(int(prefix)) != prefix:
            raise ValueError  # a netmask, or a number in a form of its own
        network = ipaddress.ip_network(text, strict=False)
        address = ipaddress.ip_address(host)
    except ValueError:
        raise MalformedAddress("neither an IPv4 or IPv6 address nor a CIDR range such as 10.0.0.0/8") from None
    if "%" in text or text != text.strip():
        raise MalformedAddress("an address without a zone or white space is expected")
    if address != network.network_address:
        raise MalformedAddress(f"has bits set outside its prefix; write {network} or the address alone")
    first, last = int(network.network_address), int(network.broadcast_address)
    if network.version == 6 and first & _MAPPED_MASK == _MAPPED and network.prefixlen >= 96:
        return 4, first & 0xFFFF_FFFF, last & 0xFFFF_FFFF
    return network.version, first, last


class AddressSet:
    """A set of address ranges; a look-up is one binary search, however many there are."""

    __slots__ = ("_firsts", "_firsts_6", "_lasts", "_lasts_6")

    def __init__(self, ranges: Iterable[str]) -> None:
        """ranges: addresses and CIDR ranges. Raises MalformedAddress."""
        merged: dict[int, list[list[int]]] = {4: [], 6: []}
        for version, first, last in sorted(map(parse_range, ranges)):
            spans = merged[version]
            if spans and first <= spans[-1][1] + 1:
                spans[-1][1] = max(spans[-1][1], last)
            else:
                spans.append([first, last])
        self._firsts, self._lasts = _edges(merged[4])
        self._firsts_6, self._lasts_6 = _edges(merged[6])

    def contains(self, text: str) -> bool:
        """Whether the address is in one of the ranges; False for what is no address."""
        parsed = parse_address(text)
        if parsed is None:
            return False
        version, number = parsed
        firsts, lasts = (self._firsts, self._lasts) if version == 4 else (self._firsts_6, self._lasts_6)
        place = bisect_right(firsts, number) - 1
        return place >= 0 and number <= lasts[place]

    def covers(self, range_: str) -> bool:
        """Whether every address of the range is in one of these. Raises MalformedAddress."""
        version, first, last = parse_range(range_)
        # Ranges that touch are merged, so a range that is covered lies within a single one.
        firsts, lasts = (self._firsts, self._lasts) if version == 4 else (self._firsts_6, self._lasts_6)
        place = bisect_right(firsts, first) - 1
        return place >= 0 and last <= lasts[place]


def _edges(spans: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(first for first, _ in spans), tuple(last for _, last in spans)
