"""Where the credential of a request is found, whatever a client sends."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchgate_server.core import bounds
from latchgate_server.core.credential_sources import CredentialSources, Found, MalformedSources
from tests.unit.strategies import ANY_TEXT

DEFAULT = "x-api-key,api-key,authorization"
EVERYTHING = f"{DEFAULT},basic,query:api_key,pair:x-key-id,x-key-secret"
KEY_ID = "lg_0123456789abcdefghijkl"
KEY = f"{KEY_ID}.secret"


def found(sources: str, headers: Mapping[str, str | Sequence[str]], path: str = "/") -> Found:
    def values(name: str) -> Sequence[str]:
        value = headers.get(name, ())
        return [value] if isinstance(value, str) else value

    return CredentialSources.parse(sources).find(values, path)


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


# Which source wins.


@pytest.mark.parametrize(
    ("headers", "credential"),
    [
        ({}, ""),
        ({"x-api-key": "a.b"}, "a.b"),
        ({"api-key": "a.b"}, "a.b"),
        ({"authorization": "Bearer a.b"}, "a.b"),
        ({"authorization": "bEARER   a.b "}, "a.b"),
        ({"authorization": "ApiKey a.b"}, "a.b"),
        ({"authorization": "Basic YTpi"}, ""),
        ({"authorization": "a.b"}, ""),
        ({"authorization": "Bearer"}, ""),
        ({"x-api-key": "first", "api-key": "second", "authorization": "Bearer third"}, "first"),
        ({"api-key": "second", "authorization": "Bearer third"}, "second"),
        ({"x-api-key": "nonsense", "api-key": KEY}, "nonsense"),
        ({"x-api-key": " \t", "api-key": KEY}, KEY),
    ],
)
def test_the_first_source_that_is_there_wins(headers: Mapping[str, str], credential: str) -> None:
    assert found(DEFAULT, headers).credential == credential
    assert not found(DEFAULT, headers).is_ambiguous


@pytest.mark.parametrize(
    ("sources", "headers", "path", "credential"),
    [
        ("basic", {"authorization": basic("id:secret")}, "/", "id.secret"),
        ("basic", {"authorization": basic("id:se:cret")}, "/", "id.se:cret"),
        ("basic", {"authorization": basic("id:")}, "/", "id"),
        ("basic", {"authorization": basic("id.secret:")}, "/", "id.secret"),
        ("basic", {"authorization": "Bearer a.b"}, "/", ""),
        ("pair:x-id,x-secret", {"x-id": "id", "x-secret": "secret"}, "/", "id.secret"),
        ("pair:x-id,x-secret", {"x-id": "id"}, "/", "id"),
        ("pair:x-id,x-secret", {"x-secret": "secret"}, "/", ".secret"),
        ("query:key", {}, "/?a=b&key=a.b&c", "a.b"),
        ("query:key", {}, "/?k%65y=a%2Eb#key=c", "a.b"),
        ("query:key", {}, "/?k%65%79=a%2eb", "a.b"),
        ("query:key", {}, "/key=a?akey=b&keys=c", ""),
        ("query:key", {}, "/?key", ""),
        ("query:key", {}, "/?key=", ""),
        ("query:key", {}, "/?Key=a.b", ""),
        ("query:key", {}, "/?a?key=b", ""),
        ("query:key,x-api-key", {"x-api-key": "second"}, "/?key=first", "first"),
    ],
)
def test_every_kind_of_source_gives_its_credential(
    sources: str, headers: Mapping[str, str], path: str, credential: str
) -> None:
    assert found(sources, headers, path).credential == credential


@pytest.mark.parametrize("value", ["Basic", "Basic !", "Basic YQ==", "Basic 4pyT", "Basic Og==", "Basic YTpi YTpi"])
def test_basic_authentication_that_is_broken_is_no_credential_and_still_wins(value: str) -> None:
    got = found("basic,api-key", {"authorization": value, "api-key": KEY})
    assert got.credential == "\0"


# Several credentials.


@pytest.mark.parametrize(
    ("sources", "headers", "path"),
    [
        (DEFAULT, {"x-api-key": "a,b"}, "/"),
        (DEFAULT, {"x-api-key": ["a", "b"]}, "/"),
        (DEFAULT, {"x-api-key": [f"{KEY} , {KEY}x"]}, "/"),
        (DEFAULT, {"authorization": "Bearer a,Bearer b"}, "/"),
        (DEFAULT, {"authorization": "Bearer a, Basic YTpi"}, "/"),
        (DEFAULT, {"authorization": ["Digest x", "Bearer a"]}, "/"),
        ("basic", {"authorization": [basic("a:b"), basic("a:c")]}, "/"),
        ("pair:x-id,x-secret", {"x-id": "a,b", "x-secret": "c"}, "/"),
        ("pair:x-id,x-secret", {"x-id": "a", "x-secret": ["c", "d"]}, "/"),
        ("query:key", {}, "/?key=a&key=b"),
        ("query:key", {}, "/?key=a&k%65y=b"),
    ],
)
def test_different_credentials_in_one_source_are_ambiguous(
    sources: str, headers: Mapping[str, str | Sequence[str]], path: str
) -> None:
    got = found(sources, headers, path)
    assert got.is_ambiguous
    assert not got.credential


@pytest.mark.parametrize(
    ("sources", "headers", "path", "credential"),
    [
        (DEFAULT, {"x-api-key": "a, a"}, "/", "a"),
        (DEFAULT, {"x-api-key": ["a", "a,"]}, "/", "a"),
        (DEFAULT, {"authorization": "Bearer a, ApiKey a"}, "/", "a"),
        ("query:key", {}, "/?key=a&key=%61", "a"),
    ],
)
def test_the_same_credential_twice_is_one(
    sources: str, headers: Mapping[str, str | Sequence[str]], path: str, credential: str
) -> None:
    assert found(sources, headers, path) == Found(
        credential, headers=found(sources, headers, path).headers, parameters=found(sources, headers, path).parameters
    )
    assert found(sources, headers, path).credential == credential


# What the upstream must not see.


def test_headers_that_are_a_credentials_alone_are_always_removed() -> None:
    everything = {"x-api-key", "api-key", "x-key-id", "x-key-secret"}
    assert set(found(EVERYTHING, {}).headers) == everything
    assert set(found(EVERYTHING, {"x-api-key": KEY}).headers) == everything


def test_the_authorization_header_is_removed_where_it_is_the_credential() -> None:
    assert "authorization" in found(DEFAULT, {"authorization": "Bearer a.b"}).headers
    assert "authorization" in found("basic", {"authorization": basic("a:b")}).headers


@pytest.mark.parametrize("value", ["Bearer eyJh.eyJz.c2ln", "Basic YTpi", 'Digest username="a", realm="b"', "AWS4 x"])
def test_a_later_authorization_header_that_is_not_of_our_form_is_left_for_the_upstream(value: str) -> None:
    assert "authorization" not in found(f"{DEFAULT},basic", {"x-api-key": KEY, "authorization": value}).headers


@pytest.mark.parametrize(
    "value", [f"Bearer {KEY}", f"ApiKey {KEY_ID}", f"Bearer x, Bearer {KEY}", basic(f"{KEY_ID}:x")]
)
def test_a_later_authorization_header_with_a_key_of_ours_is_removed(value: str) -> None:
    assert "authorization" in found(f"{DEFAULT},basic", {"x-api-key": KEY, "authorization": value}).headers


def test_a_parameter_is_removed_in_each_spelling_that_is_there() -> None:
    got = found("x-api-key,query:api_key", {"x-api-key": "a"}, "/?api%5fkey=a&x=1&api%5Fkey=b&%61pi_key&api_key=c")
    assert got.parameters == ("api%5fkey", "api%5Fkey", "%61pi_key", "api_key")


# Whatever is sent.


@given(
    st.dictionaries(
        st.sampled_from(["x-api-key", "api-key", "authorization", "x-key-id", "x-key-secret"]),
        st.lists(ANY_TEXT | ANY_TEXT.map(lambda text: f"Basic {text}") | ANY_TEXT.map(lambda text: f"Bearer {text}")),
    ),
    ANY_TEXT | ANY_TEXT.map(lambda text: f"/?api_key={text}"),
)
def test_no_request_makes_it_raise_or_find_two_things_at_once(headers: dict[str, list[str]], path: str) -> None:
    got = found(EVERYTHING, headers, path)
    assert not (got.is_ambiguous and got.credential)
    assert {"x-api-key", "api-key", "x-key-id", "x-key-secret"} <= set(got.headers)


@given(st.text(st.characters(codec="ascii", exclude_characters=", \t"), min_size=1).filter(str.isprintable))
def test_a_credential_that_may_be_one_is_found_as_it_is(credential: str) -> None:
    for sources, headers in (
        (DEFAULT, {"x-api-key": credential}),
        (DEFAULT, {"x-api-key": [credential, f"\t{credential} "]}),
        (DEFAULT, {"authorization": f"Bearer {credential}"}),
    ):
        got = found(sources, headers)
        assert (got.credential, got.is_ambiguous) == (credential, False)


@given(st.binary(max_size=60))
def test_each_spelling_of_a_parameter_that_percent_encoding_allows_is_recognised(mask: bytes) -> None:
    name = "".join(
        f"%{ord(symbol):02x}" if bit & 1 else f"%{ord(symbol):02X}" if bit & 2 else symbol
        for symbol, bit in zip("api_key", mask.ljust(7, b"\0"), strict=False)
    )
    got = found("query:api_key", {}, f"/x?{name}={KEY}")
    assert got.credential == KEY
    assert got.parameters == (name,)


def test_a_long_query_takes_no_long_time() -> None:
    assert found("query:api_key", {}, "/?" + "api_ke&%61" * 100_000).credential == ""


def test_what_was_found_does_not_show_the_credential() -> None:
    assert "secret" not in repr(found(DEFAULT, {"x-api-key": KEY}))


# The setting.


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x-api-key,",
        "x api key",
        "query:",
        "query:a b",
        "query:api&key",
        "pair:x-id",
        "pair:x-id,",
        "pair:x-id,x-id",
        "pair:x-id,basic:x",
        "pair:authorization,x-id",
        "host",
        "x-latchgate-key-id",
        "x_latchgate_user",
        ":path",
        "x" * (bounds.HEADER_NAME_LENGTH + 1),
        "query:" + "x" * (bounds.HEADER_NAME_LENGTH + 1),
        ",".join(["x-api-key"] * (bounds.CREDENTIAL_SOURCES + 1)),
    ],
)
def test_a_malformed_setting_is_refused(text: str) -> None:
    with pytest.raises(MalformedSources):
        CredentialSources.parse(text)


def test_names_of_headers_may_be_written_in_any_case_and_with_blanks() -> None:
    assert found(" X-Api-Key , basic", {"x-api-key": "a"}).credential == "a"


@pytest.mark.parametrize(
    ("sources", "challenge"),
    [
        (DEFAULT, "ApiKey, Bearer"),
        ("authorization,basic", 'Bearer, ApiKey, Basic realm="API key"'),
        ("query:api_key", ""),
    ],
)
def test_the_challenge_names_what_a_client_may_present(sources: str, challenge: str) -> None:
    assert CredentialSources.parse(sources).challenge == challenge
