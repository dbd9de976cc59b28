"""The IP allowlist: which addresses are read, and which ranges hold them. The ipaddress module is the judge."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchgate_server.core import bounds
from latchgate_server.core.addresses import AddressSet, MalformedAddress, parse_address, parse_range
from tests.unit.strategies import ANY_TEXT

EVERY_ADDRESS = AddressSet(["0.0.0.0/0", "::/0"])
ADDRESS_LIKE = st.text("0129af:.", max_size=12) | st.ip_addresses().map(str) | st.text("019af:.%/ \0[]")


def _counted_as(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """An IPv4-mapped address as the IPv4 address that it holds; any other as it is."""
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def _range_counted_as(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    mapped = _counted_as(network.network_address)
    if isinstance(network, IPv6Network) and isinstance(mapped, IPv4Address):
        return IPv4Network((mapped, network.prefixlen - 96))
    return network


def _subnets(block: str) -> list[str]:
    network = ip_network(block)
    prefixes = range(network.prefixlen, network.max_prefixlen + 1)
    return [str(subnet) for prefix in prefixes for subnet in network.subnets(new_prefix=prefix)]


# A neighbourhood small enough to try every address of it, with what lies just outside.
BLOCKS = ("10.0.0.0/28", "::ffff:a00:0/124", "2001:db8::/124")
SUBNETS = [subnet for block in BLOCKS for subnet in _subnets(block)]
RANGES = [*SUBNETS, "10.0.0.0/8", "::ffff:0:0/96", "2001::/16", "::/0"]
ADDRESSES = [
    *(str(address) for block in BLOCKS for address in ip_network(block)),
    *("9.255.255.255", "10.0.0.16", "::ffff:a00:10", "2001:db8::10", "::", "::a00:1", "2001:0DB8:0:0:0:0:0:1"),
]


# Which ranges hold an address.


@given(st.lists(st.sampled_from(RANGES), max_size=6))
def test_a_set_holds_exactly_the_addresses_of_its_ranges(ranges: list[str]) -> None:
    networks = [_range_counted_as(ip_network(text)) for text in ranges]
    addresses = AddressSet(ranges)
    for text in ADDRESSES:
        assert addresses.contains(text) == any(_counted_as(ip_address(text)) in network for network in networks), text


@given(st.lists(st.sampled_from(RANGES), max_size=6))
def test_a_set_covers_a_range_exactly_where_it_holds_every_address_of_it(ranges: list[str]) -> None:
    addresses = AddressSet(ranges)
    held = {text for text in ADDRESSES if addresses.contains(text)}
    for asked in SUBNETS:
        assert addresses.covers(asked) == held.issuperset(map(str, ip_network(asked))), asked


@given(st.ip_addresses())
def test_an_address_alone_is_a_range_of_one(address: IPv4Address | IPv6Address) -> None:
    alone = AddressSet([str(address)])
    assert alone.contains(str(address))
    assert not alone.contains(str(address + 1 if address.is_unspecified else address - 1))


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_an_ipv4_address_is_the_same_in_its_mapped_form_both_as_range_and_as_client(
    address: IPv4Address, prefix: int
) -> None:
    mapped = f"::ffff:{address}"
    network = ip_network((address, prefix), strict=False)
    assert AddressSet([str(network)]).contains(mapped)
    assert AddressSet([f"::ffff:{network.network_address}/{96 + prefix}"]).contains(str(address))


def test_all_of_ipv6_holds_no_ipv4() -> None:
    whole = AddressSet(["::/0"])
    assert whole.contains("2001:db8::1")
    assert not whole.contains("192.0.2.1")
    assert not whole.contains("::ffff:192.0.2.1")


def test_ranges_that_overlap_or_touch_leave_no_gap_and_open_none() -> None:
    addresses = AddressSet(["10.0.0.0/24", "10.0.0.128/25", "10.0.1.0/24", "10.0.3.0/24"])
    assert all(addresses.contains(text) for text in ["10.0.0.0", "10.0.0.255", "10.0.1.0", "10.0.1.255", "10.0.3.0"])
    assert not any(addresses.contains(text) for text in ["9.255.255.255", "10.0.2.0", "10.0.2.255", "10.0.4.0"])


def test_no_ranges_hold_no_address() -> None:
    assert not any(AddressSet([]).contains(text) for text in ADDRESSES)


# Reading an address.


@given(ANY_TEXT | ADDRESS_LIKE)
def test_any_text_is_read_as_the_ipaddress_module_reads_it_and_without_zones(text: str) -> None:
    try:
        address = None if "%" in text else _counted_as(ip_address(text))
    except ValueError:
        address = None
    assert parse_address(text) == (None if address is None else (address.version, int(address)))
    assert EVERY_ADDRESS.contains(text) == (address is not None)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "10.0.0", "10.0.0.256", "10.0.0.01", "0x0a.0.0.1", "167772161", "10.0.0.1\0", "10.0.0.1\n"),
        *(" 10.0.0.1", "10.0.0.1:80", "10.0.0.1/32", "10.0.0.1,10.0.0.2", "\uff11\uff10.0.0.1", "\ud800", "localhost"),
        *("[::1]", "fe80::1%eth0", ":::", "1::2::3", "::ffff:10.0.0.01", "::ffff:10.0.0.256", "12345::", "::1/128"),
    ],
)
def test_a_malformed_address_is_in_no_range(text: str) -> None:
    assert parse_address(text) is None
    assert not EVERY_ADDRESS.contains(text)


@pytest.mark.parametrize("symbol", ["1", ":", ".", "0:", "1."])
def test_an_oversized_address_is_in_no_range(symbol: str) -> None:
    assert not EVERY_ADDRESS.contains(symbol * bounds.CLIENT_ADDRESS_LENGTH)
    assert not EVERY_ADDRESS.contains("10.0.0.1" + symbol * 1_000_000)


# Reading a range.


@given(ANY_TEXT | ADDRESS_LIKE | st.builds("{}/{}".format, st.ip_addresses(), st.integers(-1, 129)))
def test_any_text_is_a_range_or_a_malformed_address(text: str) -> None:
    try:
        version, first, last = parse_range(text)
    except MalformedAddress:
        return
    assert 0 <= first <= last < 2 ** (32 if version == 4 else 128)


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/8/8", "10.0.0.0/ 8", " 10.0.0.0/8"),
        *("10.0.0.0-9", "10.0.0/8", "10.*", "localhost", "10.0.0.0/8\n", "\ud800/8"),
        *("::/129", "[::1]", "fe80::1%eth0", "fe80::%eth0/64"),
    ],
)
def test_a_malformed_range_is_refused(text: str) -> None:
    with pytest.raises(MalformedAddress):
        AddressSet(["10.0.0.0/8", text])
    with pytest.raises(MalformedAddress):
        EVERY_ADDRESS.covers(text)


@pytest.mark.parametrize(
    ("text", "meant"), [("10.0.0.1/8", "10.0.0.0/8"), ("2001:db8::1/32", "2001:db8::/32"), ("10.0.0.1/0", "0.0.0.0/0")]
)
def test_a_range_with_bits_outside_its_prefix_is_refused_and_told_the_range_it_may_mean(text: str, meant: str) -> None:
    with pytest.raises(MalformedAddress, match=meant):
        parse_range(text)
