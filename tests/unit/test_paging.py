"""Page tokens: each leads on in the one list and view that it was issued for, and nobody else can make one."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchgate_server.admin.access import Caller
from latchgate_server.admin.paging import PageRequest, PageTokens, position_from, position_to
from latchgate_server.core import bounds
from latchgate_server.core.errors import InvalidRequest
from latchgate_server.core.model import ROOT_TENANT, HashProfile, Key, SecretHash, Tenant
from latchgate_server.core.ports import ListPosition
from latchgate_server.core.record import build_record
from latchgate_server.hashing import Peppers
from tests.unit.strategies import ANY_CHARACTER, ANY_TEXT

OLD, NEW = bytes(32), bytes(range(32))
TOKENS = PageTokens(Peppers([NEW]))
QUERY = "KeyFilter(owner='ada')"
SECRET = SecretHash(profile=HashProfile.GENERATED, pepper_id="", phc="", tag=None)


def caller(
    tenant_id: str = "acme", method: str = "ListKeys", only_owner: str | None = None, key_id: str = "k"
) -> Caller:
    record = build_record(
        key=Key(key_id=key_id, tenant_id=tenant_id),
        secret=SECRET,
        tenant=Tenant(tenant_id=tenant_id),
        plan=None,
        roles=[],
        revision=1,
    )
    return Caller(record=record, method=method, address="", on_behalf_of="", only_owner=only_owner)


CALLER = caller()


def issue(position: str, tokens: PageTokens = TOKENS, by: Caller = CALLER, query: str = QUERY) -> str:
    """The token for the page after `position`."""
    token = tokens.page(by, query, [position, "one more"], 1, str).next_token
    assert token
    return token


def start(token: str, tokens: PageTokens = TOKENS, by: Caller = CALLER, query: str = QUERY) -> str:
    return tokens.start(by, query, PageRequest(0, token))


def assert_refused(token: str, by: Caller = CALLER, query: str = QUERY, tokens: PageTokens = TOKENS) -> None:
    with pytest.raises(InvalidRequest) as caught:
        start(token, tokens, by, query)
    assert [violation.field for violation in caught.value.violations] == ["page_token"]


# What a token says.


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=bounds.ID_LENGTH))
def test_a_token_leads_to_the_position_that_it_was_issued_for(position: str) -> None:
    assert start(issue(position)) == position


@given(st.text(st.characters(max_codepoint=127), max_size=bounds.ID_LENGTH))
def test_a_token_fits_into_a_request(position: str) -> None:
    assert len(issue(position)) <= bounds.PAGE_TOKEN_LENGTH


def test_without_a_token_the_list_begins_at_its_beginning() -> None:
    assert start("") == ""


# Tampering.


@given(st.text("0123456789abc-", min_size=1, max_size=20), st.data())
def test_a_token_with_any_one_character_altered_is_refused(position: str, data: st.DataObject) -> None:
    token = issue(position)
    place = data.draw(st.integers(0, len(token) - 1))
    symbol = data.draw(ANY_CHARACTER.filter(lambda symbol: symbol != token[place]))
    assert_refused(token[:place] + symbol + token[place + 1 :])


@given(st.text("0123456789abc-", min_size=1, max_size=20), st.data())
def test_a_token_with_any_one_byte_altered_is_refused(position: str, data: st.DataObject) -> None:
    raw = bytearray(base64.urlsafe_b64decode(issue(position)))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    assert_refused(base64.urlsafe_b64encode(raw).decode())


@given(st.text("0123456789abc-", min_size=1, max_size=20), st.data())
def test_a_token_with_something_added_or_cut_off_is_refused(position: str, data: st.DataObject) -> None:
    token = issue(position)
    place = data.draw(st.integers(0, len(token)))
    assert_refused(token[:place] + data.draw(ANY_CHARACTER) + token[place:])
    if place not in (0, len(token)):
        assert_refused(token[:place])
        assert_refused(token[place:])


@given(ANY_TEXT.filter(bool))
def test_no_text_that_nobody_issued_is_a_token(text: str) -> None:
    assert_refused(text)


def test_the_position_is_bound_to_the_query_so_that_neither_can_borrow_from_the_other() -> None:
    token = base64.urlsafe_b64decode(issue("17", query="a1"))
    assert_refused(base64.urlsafe_b64encode(token[:16] + b"117").decode(), query="a")


# Whose token, and for what.


@pytest.mark.parametrize(
    "by",
    [
        caller(tenant_id="other"),
        caller(tenant_id=ROOT_TENANT),
        caller(method="ListRoles"),
        caller(only_owner="ada"),
        caller(only_owner=""),
    ],
)
def test_a_token_is_refused_to_who_sees_something_else(by: Caller) -> None:
    assert_refused(issue("17"), by=by)
    assert_refused(issue("17", by=by))


def test_a_token_is_refused_for_another_query() -> None:
    for query in ("", "KeyFilter(owner='bob')", QUERY + " "):
        assert_refused(issue("17"), query=query)


def test_a_colleague_who_sees_the_same_may_read_on() -> None:
    assert start(issue("17"), by=caller(key_id="another")) == "17"


def test_a_token_outlives_a_new_pepper_but_not_the_removal_of_its_own() -> None:
    before, between, after = (PageTokens(Peppers(peppers)) for peppers in ([OLD], [NEW, OLD], [NEW]))
    assert start(issue("17", before), between) == "17"
    assert start(issue("17", between), after) == "17"
    assert_refused(issue("17", before), tokens=after)


# Pages.


def test_a_page_gives_one_item_less_than_was_read_and_the_last_page_gives_no_token() -> None:
    page = TOKENS.page(CALLER, QUERY, ["a", "b", "c"], 2, str)
    assert page.items == ["a", "b"]
    assert start(page.next_token) == "b"
    for found in ([], ["c"], ["c", "d"]):
        last = TOKENS.page(CALLER, QUERY, found, 2, str)
        assert (last.items, last.next_token) == (found, "")


@pytest.mark.parametrize(
    ("size", "limit"), [(0, 50), (1, 1), (999, 999), (1_000, 1_000), (1_001, 1_000), (2**31 - 1, 1_000)]
)
def test_a_page_has_its_default_size_and_at_most_its_largest(size: int, limit: int) -> None:
    assert PageRequest(size, "").limit == limit


def test_a_negative_size_is_refused_by_its_name() -> None:
    with pytest.raises(InvalidRequest) as caught:
        _ = replace(PageRequest(0, ""), size=-1).limit
    assert [violation.field for violation in caught.value.violations] == ["page_size"]


@given(
    number=st.integers(0, 2**63 - 1),
    time=st.none() | st.datetimes(timezones=st.just(UTC)),
)
def test_a_position_is_read_back_as_it_was_written(number: int, time: datetime | None) -> None:
    position = ListPosition(number, time)
    assert position_from(position_to(position)) == position


def test_the_first_page_has_no_position() -> None:
    assert position_from("") is None
