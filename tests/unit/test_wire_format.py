"""Serialised parts: written as the protobuf library writes them."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from latchgate.v1.verify_service_pb2 import VerifyResponse
from latchgate_server.transport.wire_format import varint


@given(st.integers(1, 2**63 - 1) | st.integers(0, 9).map(lambda bytes_: 1 << 7 * bytes_))
@example(127)
@example(128)
@example(16_383)
@example(16_384)
@example(2**63 - 1)
def test_a_number_is_written_in_the_fewest_digits_of_base_128(number: int) -> None:
    number = min(number, 2**63 - 1)
    _tag, *digits = VerifyResponse(revision=number).SerializeToString()
    assert varint(number) == bytes(digits)


def test_nothing_is_one_digit() -> None:
    assert varint(0) == b"\0"
