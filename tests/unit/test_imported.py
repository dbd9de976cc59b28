"""What may be taken over from other systems: no Argon2 hash that is dear, none that our library cannot read."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from argon2 import Type
from argon2.low_level import hash_secret, verify_secret
from hypothesis import given
from hypothesis import strategies as st

from latchgate_server.core import bounds
from latchgate_server.core.imported import argon2_problem, digest_form, key_id_problem
from latchgate_server.core.key_format import has_key_id_form, parse
from latchgate_server.hashing import _argon2_verifies
from tests.unit.strategies import ANY_TEXT

SALT, HASH = "c2FsdHNhbHRzYWx0c2FsdA", "aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g"
GOOD = f"$argon2id$v=19$m=19456,t=2,p=1${SALT}${HASH}"


def phc(m: object = 64, t: object = 1, p: object = 1, salt: str = SALT, hash_: str = HASH) -> str:
    return f"$argon2id$v=19$m={m},t={t},p={p}${salt}${hash_}"


def b64(count: int) -> str:
    return base64.b64encode(bytes(count)).decode().rstrip("=")


# The bounds of an Argon2 hash.


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        GOOD.replace("argon2id", "argon2i"),
        GOOD.replace("argon2id", "argon2d"),
        GOOD.replace("v=19", "v=16"),
        GOOD.replace("$v=19", ""),
        phc(m=bounds.IMPORT_ARGON2_KIB, t=4, p=bounds.IMPORT_ARGON2_LANES),
        phc(m=8, t=bounds.IMPORT_ARGON2_PASSES),
        phc(m=16, p=2),
        phc(salt=b64(8), hash_=b64(16)),
        phc(salt=b64(bounds.IMPORT_ARGON2_BYTES), hash_=b64(bounds.IMPORT_ARGON2_BYTES)),
    ],
)
def test_what_is_at_a_bound_may_be_imported(text: str) -> None:
    assert argon2_problem(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "$2b$12$abcdefghijklmnopqrstuv",
        "$scrypt$ln=17,r=8,p=1$c2FsdA$aGFzaA",
        GOOD + "$",
        " " + GOOD,
        GOOD + "\n",
        GOOD.replace("v=19", "v=18"),
        GOOD.replace("argon2id", "argon2ID"),
        GOOD.replace("m=19456", "m=019456"),
        GOOD.replace("m=19456", "m=-1"),
        GOOD.replace("m=19456", "m=1e4"),
        GOOD.replace("m=19456", "m=٣٣"),
        GOOD.replace("m=19456,t=2", "t=2,m=19456"),
        GOOD.replace("p=1$", "p=1,keyid=AA$"),
        phc(m=bounds.IMPORT_ARGON2_KIB + 1),
        phc(m=9_999_999_999),
        phc(m=10**4_000),
        phc(m=7),
        phc(m=15, p=2),
        phc(t=0),
        phc(t=bounds.IMPORT_ARGON2_PASSES + 1),
        phc(p=0),
        phc(m=64, p=bounds.IMPORT_ARGON2_LANES + 1),
        phc(m=bounds.IMPORT_ARGON2_KIB, t=5),
        phc(salt=b64(7)),
        phc(hash_=b64(15)),
        phc(salt=b64(bounds.IMPORT_ARGON2_BYTES + 1)),
        phc(hash_=b64(bounds.IMPORT_ARGON2_BYTES + 1)),
        phc(salt=SALT + "=="),
        phc(salt=SALT[:-1] + "B"),
        phc(salt="A" * 13),
        phc(m=64, salt="A" * bounds.IMPORT_PHC_LENGTH),
    ],
)
def test_what_is_beyond_a_bound_or_malformed_may_not(text: str) -> None:
    assert argon2_problem(text)
    assert SALT not in argon2_problem(text), "what is told must not hold what was sent"


@given(ANY_TEXT)
def test_no_text_breaks_the_check(text: str) -> None:
    assert argon2_problem(text) or text.startswith("$argon2")


NUMBERS = st.one_of(st.integers(-2, 200_000), st.sampled_from(["", "08", "+1", "1 ", "0x8", str(2**64)]))


@given(NUMBERS, NUMBERS, NUMBERS)
def test_no_parameters_beyond_the_bounds_pass(m: Any, t: Any, p: Any) -> None:
    if argon2_problem(phc(m, t, p)) == "":
        assert 8 * p <= m <= bounds.IMPORT_ARGON2_KIB
        assert 1 <= t <= bounds.IMPORT_ARGON2_PASSES
        assert 1 <= p <= bounds.IMPORT_ARGON2_LANES
        assert m * t <= bounds.IMPORT_ARGON2_WORK


@given(
    secret=st.binary(max_size=40),
    salt=st.binary(min_size=8, max_size=24),
    length=st.integers(16, bounds.IMPORT_ARGON2_BYTES),
    lanes=st.integers(1, bounds.IMPORT_ARGON2_LANES),
    passes=st.integers(1, 3),
    type_=st.sampled_from(list(Type)),
    version=st.sampled_from([16, 19]),
)
def test_what_the_reference_implementation_writes_may_be_imported_and_verifies(
    secret: bytes, salt: bytes, length: int, lanes: int, passes: int, type_: Type, version: int
) -> None:
    text = hash_secret(secret, salt, passes, 8 * lanes, lanes, length, type_, version).decode()
    assert argon2_problem(text) == ""
    assert _argon2_verifies(text, secret)
    assert not _argon2_verifies(text, secret + b"!")


MUTATIONS = st.sampled_from(list("$,=.mtpvid0189AZaz/+- \x00é"))


@given(st.integers(0, 90), MUTATIONS, st.integers(0, 2))
def test_whatever_passes_can_be_read_by_the_reference_implementation(place: int, symbol: str, cut: int) -> None:
    good = phc(m=8)
    place = min(place, len(good))
    text = good[:place] + symbol + good[place + cut :]
    if argon2_problem(text) == "":
        assert _argon2_verifies(text, b"not it") is False, "malformed would raise CannotDecide"


def test_the_wrong_type_would_verify_nothing() -> None:
    text = hash_secret(b"x", bytes(16), 1, 8, 1, 32, Type.I).decode()
    with pytest.raises(Exception, match=r".*"):
        verify_secret(text.encode(), b"x", Type.ID)
    assert _argon2_verifies(text, b"x")


# Key ids and forms.


@pytest.mark.parametrize("key_id", ["x", "sk_live", "partner:7/eu=1", "~", "x" * bounds.KEY_ID_LENGTH, "lg_short"])
def test_a_key_id_of_another_system_is_kept(key_id: str) -> None:
    assert key_id_problem(key_id) == ""


@pytest.mark.parametrize(
    "key_id",
    ["", ".", "a.b", "a b", " ", "\t", "é", "\x7f", "\ud800", "x" * (bounds.KEY_ID_LENGTH + 1), "lg_" + "0" * 22],
)
def test_a_key_id_that_could_never_be_presented_or_looks_like_ours_is_refused(key_id: str) -> None:
    assert key_id_problem(key_id)


@given(ANY_TEXT, st.binary(min_size=32, max_size=32))
def test_no_key_id_is_ever_taken_for_a_digest(key_id: str, digest: bytes) -> None:
    form = digest_form(digest)
    assert key_id_problem(form)
    assert key_id != form or key_id_problem(key_id)
    assert re.fullmatch(r"sha256\.[0-9a-f]{64}", form)


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=80))
def test_a_key_id_that_is_accepted_is_what_a_credential_is_taken_apart_into(key_id: str) -> None:
    if key_id_problem(key_id) == "":
        presented = parse(f"{key_id}.any.secret")
        assert presented is not None
        assert (presented.key_id, presented.secret) == (key_id, "any.secret")
        assert not has_key_id_form(key_id)
