"""The credential: how it comes apart, which key ids are ours, and which damage to a secret is noticed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import reduce

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from latchgate_server.core import bounds
from latchgate_server.core.key_format import (
    ALPHABET,
    SECRET_LENGTH,
    Presented,
    has_key_id_form,
    is_genuine_key_id,
    is_prefix,
    is_whole_secret,
    parse,
    render_key_id,
    render_secret,
)
from tests.unit.strategies import ANY_CHARACTER, ANY_TEXT

PUBLISHED_KEY_ID = re.compile(r"[a-z][a-z0-9_]{0,31}_[0-9A-Za-z]{22}")
PUBLISHED_KEY_STRING = re.compile(PUBLISHED_KEY_ID.pattern + r"\.[0-9A-Za-z]{49}")

TAG_KEY = b"the tag key of this deployment"
KEY_ID = "lg_7RiJxkEgOGusQGwpIaEXAMPL"
PREFIXES = st.from_regex(r"[a-z][a-z0-9_]{0,31}", fullmatch=True)
SYMBOLS = st.sampled_from(ALPHABET) | ANY_CHARACTER


@st.composite
def credentials(draw: st.DrawFn) -> tuple[str, str]:
    """The key id and the secret of a key that this deployment issued."""
    key_id = render_key_id(draw(PREFIXES), draw(st.binary(min_size=16, max_size=16)), TAG_KEY)
    return key_id, render_secret(key_id, draw(st.binary(min_size=32, max_size=32)))


def altered(text: str, symbol: str) -> Iterator[str]:
    """The text with each of its characters, one at a time, replaced by another symbol."""
    return (text[:i] + symbol + text[i + 1 :] for i, old in enumerate(text) if old != symbol)


def truncated(text: str) -> Iterator[str]:
    """The text cut off at every place, once at its end and once at its beginning."""
    for i in range(1, len(text)):
        yield text[:i]
        yield text[i:]
    yield ""


# Taking a credential apart.


@given(ANY_TEXT | st.text("lg_0A.", max_size=8))
def test_parsing_takes_any_text_and_invents_nothing(text: str) -> None:
    presented = parse(text)
    assert presented is None or text in (
        presented.key_id,
        f"{presented.key_id}.",
        f"{presented.key_id}.{presented.secret}",
    )


def halves(key_string: str) -> tuple[str, str | None]:
    presented = parse(key_string)
    assert presented is not None
    return presented.key_id, presented.secret


@given(credentials())
def test_an_issued_credential_comes_apart_into_its_two_halves(credential: tuple[str, str]) -> None:
    assert halves(".".join(credential)) == credential


@pytest.mark.parametrize("text", [KEY_ID, f"{KEY_ID}."])
def test_a_key_id_alone_comes_without_a_secret(text: str) -> None:
    assert halves(text) == (KEY_ID, None)


def test_all_behind_the_first_dot_is_the_secret() -> None:
    assert halves("id.one.two.") == ("id", "one.two.")


@pytest.mark.parametrize(
    "text",
    ["", ".", ".secret", "id.sec\0ret", "id.secret\n", "id\t.secret", "id.secret\x7f", "\u0456d.secret", "id.\ud800"],
)
def test_what_is_empty_or_not_printable_ascii_is_no_credential(text: str) -> None:
    assert parse(text) is None


def test_a_credential_may_be_as_long_as_its_bound_and_no_longer() -> None:
    longest = "id." + "x" * (bounds.KEY_STRING_LENGTH - 3)
    assert parse(longest) is not None
    assert parse(longest + "x") is None


@given(credentials())
def test_the_repr_of_a_presented_credential_does_not_hold_its_secret(credential: tuple[str, str]) -> None:
    key_id, secret = credential
    assert key_id not in repr(Presented(key_id, None)), "a credential in a form of its own may be all secret"
    assert secret not in repr(Presented(key_id, secret))


# The form that is published for secret scanners.


@given(credentials())
def test_every_issued_credential_matches_the_published_expression(credential: tuple[str, str]) -> None:
    assert PUBLISHED_KEY_STRING.fullmatch(".".join(credential))


@given(st.from_regex(r"[a-z0_][a-z0-9_]{0,33}_[0-9A-Za-z]{21,23}\n?", fullmatch=True) | ANY_TEXT)
def test_a_key_id_has_our_form_exactly_where_the_published_expression_matches(text: str) -> None:
    assert has_key_id_form(text) == (PUBLISHED_KEY_ID.fullmatch(text) is not None)


def test_key_ids_and_secrets_in_the_field_stay_valid() -> None:
    """Computed apart from the code, by the documented algorithm: what was issued once must stay valid for ever."""
    key_id = "lg_7RiJxkEgOGusQGwpIaSBpz"
    secret = "003aUlTJC7tjlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf1fWeSP"
    assert render_key_id("lg", bytes(range(16)), b"tag key") == key_id
    assert render_secret(key_id, bytes(range(32))) == secret


@pytest.mark.parametrize("text", ["l", "lg", "lg_live", "lg2", "x" * bounds.KEY_PREFIX_LENGTH])
def test_a_prefix_is_a_letter_and_then_letters_digits_and_underscores(text: str) -> None:
    assert is_prefix(text)


@pytest.mark.parametrize(
    "text", ["", "_lg", "2lg", "Lg", "l-g", "l.g", "lg\n", "l\u0261", "x" * (bounds.KEY_PREFIX_LENGTH + 1)]
)
def test_nothing_else_is_a_prefix(text: str) -> None:
    assert not is_prefix(text)


# The tag of a key id.


@given(credentials())
def test_an_issued_key_id_is_genuine(credential: tuple[str, str]) -> None:
    assert is_genuine_key_id(credential[0], TAG_KEY)


@given(credentials())
def test_a_key_id_of_another_deployment_is_not_genuine(credential: tuple[str, str]) -> None:
    assert not is_genuine_key_id(credential[0], b"the tag key of another deployment")


@given(ANY_TEXT)
def test_no_text_that_nobody_issued_is_genuine(text: str) -> None:
    assert not is_genuine_key_id(text, TAG_KEY)


@given(credentials(), st.text(ALPHABET, min_size=6, max_size=6))
def test_a_forged_tag_is_refused(credential: tuple[str, str], tag: str) -> None:
    key_id = credential[0]
    assume(tag != key_id[-6:])
    assert not is_genuine_key_id(key_id[:-6] + tag, TAG_KEY)


@given(credentials(), SYMBOLS)
def test_a_key_id_with_any_one_character_altered_is_refused(credential: tuple[str, str], symbol: str) -> None:
    assert not any(is_genuine_key_id(text, TAG_KEY) for text in altered(credential[0], symbol))


@given(credentials(), SYMBOLS)
def test_a_key_id_cut_short_or_lengthened_is_refused(credential: tuple[str, str], symbol: str) -> None:
    key_id = credential[0]
    assert not any(is_genuine_key_id(text, TAG_KEY) for text in truncated(key_id))
    assert not is_genuine_key_id(key_id + symbol, TAG_KEY)
    assert not is_genuine_key_id(symbol + key_id, TAG_KEY)


# The checksum of a secret.


@given(credentials())
def test_an_issued_secret_is_whole(credential: tuple[str, str]) -> None:
    assert is_whole_secret(*credential)


@given(ANY_TEXT | st.text(ALPHABET, min_size=SECRET_LENGTH, max_size=SECRET_LENGTH))
def test_no_text_that_nobody_issued_is_a_whole_secret(text: str) -> None:
    assert not is_whole_secret(KEY_ID, text)


@given(credentials(), SYMBOLS)
def test_any_one_character_altered_in_a_secret_is_noticed(credential: tuple[str, str], symbol: str) -> None:
    key_id, secret = credential
    assert not any(is_whole_secret(key_id, text) for text in altered(secret, symbol))


@given(credentials(), st.sampled_from(ALPHABET))
def test_any_one_character_altered_in_the_key_id_is_noticed(credential: tuple[str, str], symbol: str) -> None:
    key_id, secret = credential
    assert not any(is_whole_secret(text, secret) for text in altered(key_id, symbol))


@given(credentials(), SYMBOLS)
def test_a_secret_cut_short_or_lengthened_is_noticed(credential: tuple[str, str], symbol: str) -> None:
    key_id, secret = credential
    assert not any(is_whole_secret(key_id, text) for text in truncated(secret))
    assert not is_whole_secret(key_id, secret + symbol)
    assert not is_whole_secret(key_id, symbol + secret)


@given(st.binary(min_size=32, max_size=32))
@example(bytes(32))
@example(b"\xff" * 32)
def test_all_the_entropy_can_be_read_back_from_a_secret_of_always_the_same_length(entropy: bytes) -> None:
    secret = render_secret(KEY_ID, entropy)
    digits = [ALPHABET.index(symbol) for symbol in secret[:-6]]
    assert reduce(lambda number, digit: number * 62 + digit, digits) == int.from_bytes(entropy)
    assert len(secret) == SECRET_LENGTH
