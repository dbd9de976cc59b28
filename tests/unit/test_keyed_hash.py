"""HMAC under a key that is kept: the same as the library's."""

from __future__ import annotations

import hmac

from hypothesis import given
from hypothesis import strategies as st

from latchgate_server.core.keyed_hash import KeyedHash


@given(st.binary(max_size=200), st.lists(st.binary(max_size=300), min_size=1, max_size=3))
def test_it_is_hmac_sha256_of_every_key_and_message_however_often_it_is_asked(
    key: bytes, messages: list[bytes]
) -> None:
    keyed = KeyedHash(key)
    assert [keyed.digest(message) for message in messages] == [hmac.digest(key, one, "sha256") for one in messages]


def test_a_test_vector_of_rfc_4231() -> None:
    digest = KeyedHash(b"Jefe").digest(b"what do ya want for nothing?")
    assert digest.hex() == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
